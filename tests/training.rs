//! Training: it learns, it resumes bit for bit, and what must not move does not.

mod learning;
mod resume;
pub(crate) mod small_task;
