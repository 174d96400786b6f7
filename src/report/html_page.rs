//! The frame of an HTML page: style for light and dark, tables, and text made safe: secrets masked, then escaped.

use std::fmt::Write;

use crate::secrets::{redact, visible_letter};

/// Everything a page is made of; nothing is loaded, nothing runs.
const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
"#;

const STYLE: &str = r#"<style>
:root { --ink: #1c2128; --soft: #59636e; --paper: #ffffff; --panel: #f6f8fa; --edge: #d1d9e0; --c1: #0757ba; --c2: #b35900; --c3: #1a7f37; --c4: #8250df; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117; --panel: #151b23; --edge: #3d444d; --c1: #58a6ff; --c2: #f0883e; --c3: #56d364; --c4: #bc8cff; --good: #56d364; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px 20px 60px; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 24px; margin: 0 0 2px; overflow-wrap: anywhere; } h2 { font-size: 18px; margin: 34px 0 10px; } h3 { font-size: 15px; margin: 18px 0 6px; }
p { margin: 6px 0; } .soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 14px; }
.charts > svg { background: var(--panel); border: 1px solid var(--edge); border-radius: 6px; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg .title { fill: var(--ink); font-size: 13px; font-weight: 600; }
svg .grid { stroke: var(--edge); stroke-width: 1; } svg .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } svg .faint { opacity: .3; stroke-width: 1; } svg .band { opacity: .15; stroke: none; } svg .lost { fill: var(--bad); }
svg .c1 { stroke: var(--c1); } svg .c2 { stroke: var(--c2); } svg .c3 { stroke: var(--c3); } svg .c4 { stroke: var(--c4); }
svg .dot.c1, svg .band.c1 { fill: var(--c1); } svg .dot.c2, svg .band.c2 { fill: var(--c2); } svg .dot.c3, svg .band.c3 { fill: var(--c3); } svg .dot.c4, svg .band.c4 { fill: var(--c4); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--edge); vertical-align: top; } th { color: var(--soft); font-weight: 600; } .right { text-align: right; }
pre, code { font: 12.5px/1.45 ui-monospace, monospace; } pre { background: var(--panel); border: 1px solid var(--edge); border-radius: 6px; padding: 8px 10px; margin: 4px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 12px; } summary { cursor: pointer; margin: 8px 0; }
</style>
</head>
<body>
"#;

/// A page being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) text: String,
    /// Secrets masked so far.
    pub(super) masked: usize,
}

impl Writer {
    pub(super) fn begin(title: &str) -> Self {
        let mut page = Self::default();
        let title = page.safe(title);
        page.text = format!("{HEAD}<title>{title}</title>\n{STYLE}");
        page
    }

    pub(super) fn finish(mut self) -> Self {
        self.text.push_str("</body>\n</html>\n");
        self
    }

    pub(super) fn raw(&mut self, html: &str) {
        self.text.push_str(html);
        self.text.push('\n');
    }

    pub(super) fn heading(&mut self, text: &str) {
        let text = self.safe(text);
        self.raw(&format!("<h2>{text}</h2>"));
    }

    pub(super) fn paragraph(&mut self, class: &str, text: &str) {
        let text = self.safe(text);
        self.raw(&format!("<p class=\"{class}\">{text}</p>"));
    }

    /// A table of texts; columns whose title ends in `>` are aligned to the right.
    pub(super) fn table(&mut self, titles: &[&str], rows: &[Vec<String>]) {
        let mut html = String::from("<div class=\"wide\"><table><tr>");
        let class = |title: &str| if title.ends_with('>') { " class=\"right\"" } else { "" };
        for title in titles {
            let _ = write!(html, "<th{}>{}</th>", class(title), escape(title.trim_end_matches('>')));
        }
        html.push_str("</tr>");
        for row in rows {
            html.push_str("<tr>");
            for (title, cell) in titles.iter().zip(row) {
                let _ = write!(html, "<td{}>{}</td>", class(title), self.safe(cell));
            }
            html.push_str("</tr>");
        }
        html.push_str("</table></div>");
        self.raw(&html);
    }

    /// A text from anywhere: its secrets masked and counted, then escaped.
    pub(super) fn safe(&mut self, text: &str) -> String {
        self.shortened(text, usize::MAX)
    }

    /// The same of a text that is cut behind so many characters, its secrets masked before.
    pub(super) fn shortened(&mut self, text: &str, most: usize) -> String {
        let (clean, secrets) = redact(text);
        self.masked += secrets;
        match clean.char_indices().nth(most) {
            Some((end, _)) => escape(&clean[..end]) + "…",
            None => escape(&clean),
        }
    }
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(letter),
            // Controls mean nothing in HTML, and some of them turn the reading direction around.
            letter => safe.push(visible_letter(letter)),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_safe() {
        let mut page = Writer::default();
        assert_eq!(page.safe("<a href=\"x\" onclick='y'>&"), "&lt;a href=&quot;x&quot; onclick=&#39;y&#39;&gt;&amp;");
        assert_eq!(page.safe("a\u{202E}b\u{1b}[31m\n"), "a\u{FFFD}b␛[31m\n");
        assert_eq!(page.masked, 0);
        // Made up, and put together here so that no scanner takes it for a real one.
        let token = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
        let shown = page.safe(&format!("key {token} <b>"));
        assert!(!shown.contains(&token) && shown.contains("ghp_") && shown.ends_with("&lt;b&gt;") && page.masked == 1, "{shown}");
        // Cut in its middle, a token is masked all the same, and one that came with its end cut off is too.
        assert_eq!((page.shortened(&format!("<key> {token}"), 30).as_str(), page.masked), ("&lt;key&gt; ghp_…(40 characters)", 2));
        assert_eq!((page.shortened(&format!("<key> {token}"), 12).as_str(), page.masked), ("&lt;key&gt; ghp_…(…", 3));
        assert_eq!((page.safe(&format!("no {}…", &token[..30])).as_str(), page.masked), ("no ghp_…(30 characters)…", 4));
    }
}
