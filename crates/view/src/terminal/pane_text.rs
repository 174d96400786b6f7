//! The text of what is drawn, pane by pane, for linear mode.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Modifier;
use unicode_width::UnicodeWidthStr;

use crate::pane::LINEAR_BORDER;
use crate::secrets::visible;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaneText {
    /// Empty for the text outside of panes.
    pub(super) title: String,
    /// The key that focuses it, in the upper edge; may be empty.
    pub(super) key: String,
    pub(super) focused: bool,
    /// Lines that are not blank.
    pub(super) lines: Vec<TextLine>,
    /// The text in the lower edge.
    pub(super) legend: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TextLine {
    pub(super) text: String,
    /// Whether it is selected or has the cursor.
    pub(super) selected: bool,
}

/// The text outside of panes, then the panes in reading order, those inside of others after them.
pub(super) fn panes(buffer: &Buffer) -> Vec<PaneText> {
    let frames = frames(buffer);
    let mut panes: Vec<PaneText> =
        std::iter::once(PaneText::default()).chain(frames.iter().map(|frame| head(buffer, *frame))).collect();
    for y in buffer.area.rows().map(|row| row.y) {
        let mut lines = vec![TextLine::default(); panes.len()];
        let mut x = buffer.area.left();
        while let Some(cell) = buffer.cell((x, y)) {
            // A pane inside of another begins after it.
            let inner = frames.iter().rposition(|frame| frame.contains(Position { x, y }));
            let is_edge = inner.is_some_and(|index| is_edge(frames[index], x, y));
            if let Some(line) = lines.get_mut(inner.map_or(0, |index| index + 1)).filter(|_| !is_edge) {
                line.text.push_str(cell.symbol());
                line.selected |= cell.modifier.contains(Modifier::REVERSED);
            }
            // The columns behind a wide character are blank.
            x += u16::try_from(cell.symbol().width()).unwrap_or(1).max(1);
        }
        for (pane, line) in panes.iter_mut().zip(lines) {
            pane.lines.extend((!line.text.trim().is_empty()).then(|| line.finished()));
        }
    }
    panes
}

impl TextLine {
    /// Without control characters, trailing blanks and the mark of the selection.
    fn finished(mut self) -> Self {
        self.text = visible(self.text.trim_end()).into_owned();
        let marked = self.text.trim_start().strip_prefix('>').filter(|_| self.selected);
        if let Some(rest) = marked {
            self.text = format!("{}{rest}", " ".repeat(self.text.len() - rest.len()));
        }
        self
    }
}

/// The frames of all panes in reading order.
fn frames(buffer: &Buffer) -> Vec<Rect> {
    let is = |x: u16, y: u16, symbol: &str| buffer.cell((x, y)).is_some_and(|cell| cell.symbol() == symbol);
    let area = buffer.area;
    let corners = area.positions().filter(|at| is(at.x, at.y, LINEAR_BORDER.top_left));
    let frame = |Position { x, y }| {
        let right = (x + 1..area.right()).find(|right| is(*right, y, LINEAR_BORDER.top_right))?;
        let bottom = (y + 1..area.bottom()).find(|bottom| is(x, *bottom, LINEAR_BORDER.bottom_left))?;
        Some(Rect { x, y, width: right - x + 1, height: bottom - y + 1 })
    };
    corners.filter_map(frame).collect()
}

fn is_edge(frame: Rect, x: u16, y: u16) -> bool {
    x == frame.left() || x + 1 == frame.right() || y == frame.top() || y + 1 == frame.bottom()
}

/// A pane with the texts in its edges.
fn head(buffer: &Buffer, frame: Rect) -> PaneText {
    let mut above = edge(buffer, frame, frame.top()).into_iter();
    let title = above.next().unwrap_or_default();
    let (title, focused) = match title.strip_prefix('>') {
        Some(title) => (title.trim_start().to_owned(), true),
        None => (title, false),
    };
    let legend = edge(buffer, frame, frame.bottom() - 1).join("  ");
    PaneText { title, key: above.next().unwrap_or_default(), focused, lines: Vec::new(), legend }
}

/// The texts in a horizontal edge.
fn edge(buffer: &Buffer, frame: Rect, y: u16) -> Vec<String> {
    let inside = frame.left() + 1..frame.right().saturating_sub(1);
    let text: String = inside.filter_map(|x| Some(buffer.cell((x, y))?.symbol())).collect();
    let texts = text.split(LINEAR_BORDER.horizontal_top).map(str::trim).filter(|text| !text.is_empty());
    texts.map(|text| visible(text).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::text::Line;
    use ratatui::widgets::Paragraph;

    use super::*;
    use crate::pane::framed_with;
    use crate::style_role::Role;
    use crate::theme::Theme;

    #[test]
    fn panes_beside_and_inside_of_each_other_are_read_in_order() {
        let theme = Theme::linear();
        let mut terminal = Terminal::new(TestBackend::new(40, 8)).unwrap();
        let drawn = terminal.draw(|frame| {
            frame.render_widget("above", Rect { x: 0, y: 0, width: 40, height: 1 });
            let mut pane = |title: &str, key: &str, lines: Vec<Line<'static>>, [x, y, width, height]: [u16; 4]| {
                let focused = title == "left";
                let area = Rect { x, y, width, height };
                let inside = framed_with(&theme, (title, key, Line::from(" sum ")), focused, frame, area);
                frame.render_widget(Paragraph::new(lines), inside);
            };
            let selected = Line::styled("> 語 two", theme.style(Role::Selected));
            pane("left", "alt-1", vec![Line::from("  one"), selected], [0, 1, 20, 7]);
            pane("right", "", vec![Line::from("right text")], [20, 1, 20, 7]);
            pane("inside", "", vec![Line::from("a | + b")], [22, 3, 16, 3]);
        });
        let line = |text: &str, selected| TextLine { text: text.to_owned(), selected };
        let check = |found: &PaneText, title: &str, key: &str, focused, lines: &[TextLine]| {
            assert_eq!((found.title.as_str(), found.key.as_str(), found.focused), (title, key, focused));
            assert_eq!(found.lines, lines, "{title}");
        };
        let found = panes(drawn.unwrap().buffer);
        check(&found[0], "", "", false, &[line("above", false)]);
        check(&found[1], "left", "alt-1", true, &[line("  one", false), line("  語 two", true)]);
        check(&found[2], "right", "", false, &[line("right text", false)]);
        check(&found[3], "inside", "", false, &[line("a | + b", false)]);
        assert_eq!((found.len(), found[1].legend.as_str()), (4, "sum"));
    }
}
