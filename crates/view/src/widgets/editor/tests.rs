//! Tests: keys go in, text and cursor come out.

use super::*;
use crate::key_chord::Chord;

const WINDOW: Window = Window {
    rows: 10,
    columns: 80,
    wraps: false,
};

/// Keys by their names; a single quoted text is typed letter by letter.
fn press(editor: &mut Editor, keys: &str) {
    for key in keys.split_whitespace() {
        match key {
            "undo" => _ = editor.undo(),
            "redo" => _ = editor.redo(),
            _ => {
                let chord = Chord::parse(key).unwrap_or_else(|| panic!("no key is called {key}"));
                editor.key(KeyEvent::new(chord.code, chord.modifiers), WINDOW, 0);
            }
        }
    }
}

fn check(start: &str, keys: &str, text: &str, cursor: (usize, usize)) {
    let mut editor = Editor::new(start, true);
    press(&mut editor, keys);
    assert_eq!(
        (editor.text().as_str(), editor.cursor()),
        (text, cursor),
        "{start:?} {keys}"
    );
}

#[test]
fn keys_edit_the_text() {
    check("", "a b", "ab", (0, 2));
    check("ab\nc", "down end backspace backspace", "ab", (0, 2));
    check("äöü", "right right delete", "äö", (0, 2));
    check("one two", "ctrl-right ctrl-delete", "one ", (0, 4));
    check("one two", "end ctrl-w", "one ", (0, 4));
    check("  x", "end home", "  x", (0, 2));
    check("  x", "end home home", "  x", (0, 0));
    check("ab\ncd", "ctrl-end x ctrl-home y", "yab\ncdx", (0, 1));
    check("abc", "right ctrl-k", "a", (0, 1));
    check("{}", "right enter", "{\n  \n}", (1, 2));
    check("{\n  ", "down end }", "{\n}", (1, 1));
    check("    x", "right right right right backspace", "  x", (0, 2));
    check("abc\ndef", "shift-down x", "xdef", (0, 1));
    check("abc", "shift-right shift-right delete", "c", (0, 0));
    check("abc", "shift-right ctrl-x end ctrl-v", "bca", (0, 3));
    check("abc\nd", "alt-a x", "x", (0, 1));
}

#[test]
fn undo_takes_back_whole_steps() {
    check("", "a b c space d e undo", "abc ", (0, 4));
    check("", "a b c space d e undo undo undo", "", (0, 0));
    check("", "a b undo redo", "ab", (0, 2));
    check("", "a b undo c redo", "c", (0, 1));
    check("{}", "right enter undo", "{}", (0, 1));
    check("abc", "shift-right shift-right x undo", "abc", (0, 2));
    check("", "undo redo", "", (0, 0));
    check("abcd", "end backspace backspace undo", "abcd", (0, 4));
}

#[test]
fn a_pause_ends_a_step() {
    let mut editor = Editor::new("", true);
    for (letter, now_ms) in [
        ('a', 5_000),
        ('b', 5_900),
        ('c', 6_800),
        ('d', 7_800),
        ('e', 7_900),
    ] {
        editor.key(KeyEvent::from(KeyCode::Char(letter)), WINDOW, now_ms);
    }
    let undone: Vec<String> = std::iter::from_fn(|| editor.undo().then(|| editor.text())).collect();
    assert_eq!(undone, ["abc", ""]);
}

/// The text area below jumps by `u16`.
#[test]
fn long_texts_are_reached_and_replaced_to_their_ends() {
    let (lines, column) = ("x\n".repeat(70_000), "x".repeat(70_000));
    for (text, end) in [(format!("{lines}last"), (70_000, 4)), (column, (0, 70_000))] {
        let mut editor = Editor::new(&text, true);
        press(&mut editor, "ctrl-end");
        assert_eq!(editor.cursor(), end);
        editor.replace("{}");
        assert_eq!(editor.text(), "{}");
        editor.undo();
        assert_eq!(editor.text().len(), text.len());
        editor.select_all();
        assert_eq!(editor.selected().map(|text| text.len()), Some(text.len()));
    }
    // A match beyond column 65,535, also in a row beyond 65,535.
    let far = format!("{}needle end", "x".repeat(70_000));
    for (text, place) in [
        (far.clone(), (0, 70_000)),
        (format!("{lines}{far}"), (70_000, 70_000)),
    ] {
        let mut editor = Editor::new(&text, true);
        assert_eq!((editor.find("needle"), editor.cursor()), (1, place));
        press(&mut editor, "ctrl-home");
        assert!(editor.find_next(true) && editor.cursor() == place);
    }
    // Keys, jumps and clicks there, also in a text that is the same everywhere; the search stays.
    let same = "日x".repeat(35_000);
    for (text, row) in [
        (format!("{far}\n{far}"), 0),
        (format!("{same}\n{same}"), 0),
        (format!("{lines}{far}\n{far}"), 70_000),
    ] {
        let mut editor = Editor::new(&text, true);
        editor.find("end");
        editor.go_to(row, 69_990);
        assert_eq!(editor.cursor(), (row, 69_990));
        press(&mut editor, "shift-down right");
        assert_eq!(editor.cursor(), (row + 1, 69_991));
        editor.point(0, 5, Window { rows: 1, ..WINDOW });
        assert!(
            editor.cursor().0 == row + 1 && editor.cursor().1 > 69_900,
            "{:?}",
            editor.cursor()
        );
        assert_eq!(editor.find_next(true), text.contains("end"));
    }
    let mut editor = Editor::new(&format!("{lines}last"), true);
    assert_eq!(editor.find("st"), 1);
    assert_eq!(editor.cursor(), (70_000, 2));
}

#[test]
fn another_text_is_one_step() {
    let mut editor = Editor::new("a\nb", true);
    editor.replace("longer\ntext\nhere");
    assert_eq!(editor.text(), "longer\ntext\nhere");
    assert!(editor.undo());
    assert_eq!(editor.text(), "a\nb");
    assert!(editor.redo());
    assert_eq!(editor.text(), "longer\ntext\nhere");
    editor.replace("");
    assert_eq!(editor.text(), "");
    editor.undo();
    assert_eq!(editor.text(), "longer\ntext\nhere");
}

#[test]
fn search_goes_round() {
    let mut editor = Editor::new("one\ntwo one\nOne", true);
    assert_eq!(editor.find("one"), 3);
    assert_eq!(editor.cursor(), (0, 0));
    let mut seen = Vec::new();
    for forward in [true, true, true, false] {
        editor.find_next(forward);
        seen.push(editor.cursor());
    }
    assert_eq!(seen, [(1, 4), (2, 0), (0, 0), (2, 0)]);
    assert_eq!(editor.find("nowhere"), 0);
    assert!(!editor.find_next(true));
}

#[test]
fn what_is_selected_is_text() {
    let mut editor = Editor::new("abc\nde\nf", true);
    press(&mut editor, "right shift-down shift-down");
    assert_eq!(editor.selected().as_deref(), Some("bc\nde\nf"));
    editor.select_all();
    assert_eq!(editor.selected().as_deref(), Some("abc\nde\nf"));
}

#[test]
fn a_click_finds_its_letter_also_among_wide_ones() {
    let mut editor = Editor::new("a日本b", true);
    for (column, expected) in [(0, 0), (1, 1), (2, 1), (3, 2), (5, 3), (6, 4), (40, 4)] {
        editor.point(0, column, WINDOW);
        assert_eq!(editor.cursor(), (0, expected), "{column}");
    }
    editor.point(99, 0, WINDOW);
    assert_eq!(editor.cursor().0, 0);
}

proptest::proptest! {
    #[test]
    fn any_keys_can_be_taken_back(keys in proptest::collection::vec(0..14_usize, 0..60)) {
        let names = ["a", "{", "}", "enter", "backspace", "delete", "left", "right", "shift-left", "shift-up", "down", "space", "ctrl-k", "ctrl-w"];
        let start = "{\n  \"a\": [1, 2],\n  \"ä\": null\n}";
        let mut editor = Editor::new(start, true);
        for key in keys {
            press(&mut editor, names[key]);
        }
        let end = editor.text();
        while editor.undo() {}
        proptest::prop_assert_eq!(editor.text(), start);
        while editor.redo() {}
        proptest::prop_assert_eq!(editor.text(), end);
    }
}
