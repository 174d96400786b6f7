//! Passes as one self-contained HTML file, one or several side by side: rates, what the difference is worth, tags, and the answers that changed or failed.

use super::answer_diff::{Asked, Outcome, PairedComparison, TIERS, Versus};
use super::html::{Page, answer};
use super::html_page::Writer;
use super::summary_table::{rate_rows, tag_rows, value_drift};

/// Answers of each kind that are shown.
const EXAMPLES: usize = 20;

/// The comparison, or the one pass, as a page. Texts from prompts and completions have their secrets masked.
pub fn versus_html(versus: &Versus) -> Page {
    let names: Vec<&str> = versus.passes.iter().map(|pass| pass.name.as_str()).collect();
    let set = &versus.passes[0].id.set;
    let mut page = Writer::begin(&format!("{} · {}", names.join(" against "), versus.passes[0].task));
    let title = page.safe(&names.join(" vs "));
    page.raw(&format!("<h1>{title}</h1>"));
    let beside = if versus.pairs.is_empty() { "" } else { " side by side" };
    page.paragraph("soft", &format!("task {}, {set} prompts, {} answers{beside}", versus.passes[0].task, versus.prompts.len()));
    for warning in &versus.warnings {
        page.paragraph("bad", warning);
    }
    let summaries: Vec<_> = versus.passes.iter().map(|pass| &pass.summary).collect();
    let titles: Vec<String> = std::iter::once(String::new()).chain(names.iter().map(|name| format!("{name}>"))).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    page.heading("Rates, with 95% intervals");
    let rows: Vec<Vec<String>> = rate_rows(&summaries).into_iter().map(|(label, cells)| [vec![label.to_owned()], cells].concat()).collect();
    page.table(&titles, &rows);
    for pair in &versus.pairs {
        pair_of(&mut page, versus, pair);
    }
    if let Some(last) = summaries.last() {
        page.paragraph("bad", value_drift(last).trim());
    }
    let tags: Vec<Vec<String>> =
        tag_rows(&summaries).into_iter().map(|(tag, n, cells)| [vec![format!("{tag} ({n})")], cells].concat()).collect();
    if !tags.is_empty() {
        page.heading("Valid by tag");
        page.table(&titles, &tags);
    }
    match versus.pairs.first() {
        Some(pair) => {
            for outcome in [Outcome::Broken, Outcome::Fixed, Outcome::Neither] {
                let found = versus.prompts.iter().filter(|asked| versus.outcome(asked, pair) == Some(outcome));
                examples(&mut page, versus, outcome.name(), &[pair.first, pair.second], found.collect());
            }
        }
        None => {
            let fails = |asked: &&Asked| versus.record(asked, 0).is_some_and(|record| !record.is_valid());
            examples(&mut page, versus, "not valid", &[0], versus.prompts.iter().filter(fails).collect());
        }
    }
    let page = page.finish();
    Page { text: page.text, masked: page.masked }
}

fn pair_of(page: &mut Writer, versus: &Versus, pair: &PairedComparison) {
    let names = [&versus.passes[pair.first].name, &versus.passes[pair.second].name];
    page.heading(&format!("{} to {}", names[0], names[1]));
    for judged in pair.judged() {
        page.paragraph("", judged.line().trim());
    }
    let rows: Vec<Vec<String>> = TIERS
        .iter()
        .zip(pair.tiers)
        .map(|(tier, counts)| [vec![format!("{tier} before")], counts.map(|count| count.to_string()).to_vec()].concat())
        .collect();
    page.table(&["answers", "unparsable after>", "invalid after>", "valid after>"], &rows);
}

/// The first answers of these, each under the name of its pass.
fn examples(page: &mut Writer, versus: &Versus, title: &str, passes: &[usize], found: Vec<&Asked>) {
    if found.is_empty() {
        return;
    }
    page.heading(&format!("{title}: {} of {} shown", found.len().min(EXAMPLES), found.len()));
    for asked in found.into_iter().take(EXAMPLES) {
        let id = page.safe(&asked.prompt_id);
        let mut html = format!("<h3>{id}</h3><div class=\"pair\">");
        for place in passes {
            let Some(record) = versus.record(asked, *place) else { continue };
            html.push_str(&answer(page, &versus.passes[*place].name, record, usize::MAX));
        }
        page.raw(&format!("{html}</div>"));
    }
}
