//! A build without an HTTP client has no teacher on an endpoint.

use super::TrainError;
use crate::config::TrainConfig;
use crate::rollout::ThreadPool;
use crate::text::Tokenizer;
use crate::update::PolicyGroup;

#[derive(Debug)]
pub(super) enum EndpointTeacher {}

impl EndpointTeacher {
    pub(super) fn of(config: &TrainConfig, _: &Tokenizer) -> Result<Option<Self>, TrainError> {
        match config.teacher_endpoint() {
            Some(teacher) => {
                let name = teacher.split(' ').next().unwrap_or_default().to_owned();
                let problem = "built without the feature `download`: no HTTP client".to_owned();
                Err(TrainError::TeacherEndpoint { name, problem })
            }
            None => Ok(None),
        }
    }

    pub(super) fn read(
        &self,
        _: &mut [PolicyGroup<'_>],
        _: &Tokenizer,
        _: &ThreadPool,
    ) -> Result<usize, TrainError> {
        match *self {}
    }
}
