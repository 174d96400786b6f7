//! Everything a task would run or ask, with trust.

use super::{Task, TaskJudge};
use crate::environment::{Agent, Toolset};
use crate::score::needs::trust::{Trust, TrustError, trusted_of};

impl Trust {
    /// Programs of the task's scorers and tools, and judges.
    pub fn for_task(task: &Task) -> Result<Vec<Self>, TrustError> {
        let mut all = Self::programs(task)?;
        for TaskJudge {
            task: judged,
            rules,
            ..
        } in task.judges().filter(|judge| judge.rules.local.is_none())
        {
            let trust = Self::for_judge(judged, rules.server_digest(&task.name), rules.server());
            if !all.contains(&trust) {
                all.push(trust);
            }
        }
        Ok(all)
    }

    fn programs(task: &Task) -> Result<Vec<Self>, TrustError> {
        let programs = task.scorers().filter_map(|task| {
            let rules = task.command()?;
            Some(
                task.read_files(&rules.files)
                    .map(|files| Self::for_scorer(task, rules, &files).0),
            )
        });
        let mut programs = programs.collect::<Result<Vec<_>, _>>()?;
        let tools = task
            .toolset()
            .map(Toolset::programs)
            .transpose()?
            .unwrap_or_default();
        let agent = task
            .agent()
            .map(Agent::programs)
            .transpose()?
            .unwrap_or_default();
        programs.extend(
            tools
                .into_iter()
                .chain(agent)
                .map(|tool| Self::for_tool(task, tool)),
        );
        if programs.iter().any(|program| !program.is_trusted) {
            let mut trusted = task.folder().map(trusted_of).unwrap_or_default();
            trusted.retain(|digest| programs.iter().all(|program| program.digest != *digest));
            programs.iter_mut().for_each(|program| {
                program.has_changed = !program.is_trusted && !trusted.is_empty()
            });
        }
        Ok(programs)
    }
}
