//! Nothing is lost: the real program, killed, cut short, crowded and misled wherever it may be, ends as if nothing had
//! happened.

mod clients;
mod disk;
mod evidence;
mod finished_run;
mod kills;
mod lost;
mod places;
mod slow_disk;
mod story;
mod viewers;
