//! Exports the comparison: the ending of the file decides the format.

use std::path::Path;
use std::sync::Arc;

use crate::export::{report, typed_path, written};
use crate::message::Work;
use crate::popup::{Ask, Popup};
use crate::report::{Page, ReportError, Versus, versus_csv, versus_html, versus_markdown};
use crate::shared::Shared;

type Make = fn(&Versus) -> Result<Page, ReportError>;

pub(super) fn ask(versus: &Arc<Versus>, shared: &mut Shared) {
    let versus = Arc::clone(versus);
    let here = shared.options.here.clone();
    let proposed = here
        .join(format!("{}-comparison.html", versus.evals[0].task))
        .display()
        .to_string();
    let label = "File, with the ending .html, .md or .csv:";
    let question = Ask::new("Export", label, &proposed, move |_: &mut (), _, file| {
        let file = typed_path(&file, &here);
        let Some(make) = by_ending(&file) else {
            return Vec::new();
        };
        let versus = Arc::clone(&versus);
        vec![Work::once(
            "eval.export",
            move || written(&file, make(&versus)),
            report,
        )]
    });
    let wrong = |file: &str| {
        by_ending(Path::new(file.trim()))
            .is_none()
            .then(|| "the ending is none of .html, .md, .csv".to_owned())
    };
    shared.popup = Some(Popup::Ask(question.checked(wrong)));
}

fn by_ending(file: &Path) -> Option<Make> {
    match file.extension()?.to_str()? {
        "html" => Some(versus_html),
        "md" => Some(|versus| Ok(Page::masked(&versus_markdown(versus)))),
        "csv" => Some(|versus| Ok(Page::masked(&versus_csv(versus)))),
        _ => None,
    }
}
