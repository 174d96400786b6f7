//! Alerts of GPU fallbacks, each raised once.

use crate::facts::AlertLevel;
use crate::rollout::GpuFallback;
use crate::run::events::Alert;

/// Already reported.
#[derive(Debug, Default)]
pub(in crate::train) struct Fallbacks(Vec<GpuFallback>);

impl Fallbacks {
    /// Alerts of new ones.
    pub(in crate::train) fn alerts(
        &mut self,
        step: u64,
        refused: impl IntoIterator<Item = GpuFallback>,
    ) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for gpu_fallback in refused {
            if !self.0.contains(&gpu_fallback) {
                alerts.push(fallback_alert(step, &gpu_fallback));
                self.0.push(gpu_fallback);
            }
        }
        alerts
    }
}

/// Alert for a rollout slowed down by a missing GPU resource.
fn fallback_alert(step: u64, gpu_fallback: &GpuFallback) -> Alert {
    let (rule, sentence, suggestion) = match gpu_fallback {
        GpuFallback::Smaller { parts } => (
            "out_of_memory",
            format!(
                "GPU out of memory while sampling: from now on 1/{parts} as many completions are decoded together, in \
                 1/{parts} of the cache."
            ),
            "Only time is lost. To avoid it: lower max_completion_tokens, or free the memory that other processes use \
             there.",
        ),
        GpuFallback::Unrecorded { cause } => (
            "graph_not_recorded",
            format!(
                "Steps of decoding could not be recorded as a CUDA graph ({cause}): kernels are started one by one."
            ),
            "Only time is lost. If memory is short, lower max_completion_tokens or completions_per_prompt.",
        ),
        GpuFallback::EmbeddingsOnGpu { cause } => (
            "embeddings_on_gpu",
            format!(
                "Host memory for the embeddings could not be page-locked ({cause}): they take GPU memory that the plan \
                 does not count."
            ),
            "Results are the same. To save GPU memory: free host memory, or raise the container's limit.",
        ),
    };
    Alert::new(rule, AlertLevel::Warning, step, sentence, suggestion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hinders_rollouts_is_told_once() {
        let smaller = GpuFallback::Smaller { parts: 4 };
        let unrecorded = GpuFallback::Unrecorded {
            cause: "no memory".to_owned(),
        };
        let on_gpu = GpuFallback::EmbeddingsOnGpu {
            cause: "out of memory".to_owned(),
        };
        let mut fallbacks = Fallbacks::default();
        assert_eq!(fallbacks.alerts(1, Vec::new()), []);
        let alerts = fallbacks.alerts(2, vec![smaller.clone(), smaller.clone()]);
        assert!(
            alerts.len() == 1
                && alerts[0].step == 2
                && alerts[0].sentence.contains("1/4 of the cache")
        );
        let alerts = fallbacks.alerts(3, vec![smaller, unrecorded, on_gpu]);
        let rules: Vec<&str> = alerts
            .iter()
            .map(|alert| alert.rule.name.as_str())
            .collect();
        assert_eq!(rules, ["graph_not_recorded", "embeddings_on_gpu"]);
        assert!(alerts[0].sentence.contains("(no memory)"), "{alerts:?}");
        assert!(alerts[1].sentence.contains("(out of memory): they take"));
    }
}
