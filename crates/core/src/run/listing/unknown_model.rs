//! A name that is neither a model nor a run.

use super::lookup::RunFolders;
use crate::format::did_you_mean;
use crate::hub::{HubError, embedded_model_names, local_models};

/// ``no model or run `x`; did you mean `y`?``, then a line on where models and one on where runs were looked for.
pub fn no_model_or_run(name: &str, model: &HubError, run_folders: &RunFolders) -> String {
    let runs = run_folders.labels("");
    let models: Vec<String> = local_models(&[])
        .into_iter()
        .map(|model| model.name)
        .collect();
    let of_runs = runs.iter().flat_map(|(id, own)| {
        let last = id.rsplit('-').next().unwrap_or(id);
        [id.as_str(), own.as_str(), last]
    });
    let known = models.iter().map(String::as_str).chain(of_runs);
    let near = did_you_mean(name, known.filter(|known| !known.is_empty()));
    let looked = match model {
        HubError::NotFound { looked, .. } => looked.clone(),
        other => other.to_string(),
    };
    let embedded: Vec<&str> = embedded_model_names().collect();
    format!(
        "no model or run `{name}`{near}\nmodels: {looked}; embedded: {}\nruns: none of that name in {}",
        embedded.join(", "),
        run_folders.described()
    )
}
