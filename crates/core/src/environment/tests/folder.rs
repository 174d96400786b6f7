//! Tests of a tool's folder, which each conversation begins with.

use super::*;
use crate::sandbox::{Level, machine};

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn each_conversation_may_change_its_copy_of_a_folder() {
    let body = "text = open('data/deep/a.txt').read()\nopen('data/deep/a.txt', 'a').write('+')\nopen('data/b.txt', 'w').write(text)\nanswer(result=text + open('data/b.txt').read() + open('other/c.txt').read())";
    let keys = "folder = \"data/\"\nfiles = [\"other\"]\n";
    for level in Level::ALL {
        if level > machine().level {
            continue;
        }
        let (folder, _) = python(body, "");
        for (name, text) in [("data/deep/a.txt", "a"), ("other/c.txt", "c")] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let toml = format!("{RUN}{keys}isolation = {:?}\n", level.name());
        let tools = toolset(folder.path(), &toml).unwrap();
        assert!(tools.files().any(|file| file == "data/deep/a.txt"));
        for _ in 0..2 {
            let mut conversation = tools.open(&row(json!({}))).unwrap();
            let mut ask = || reply(&mut conversation, "f", json!({"x": 1}));
            assert_eq!([ask(), ask()], ["answered: aac", "answered: a+a+c"]);
        }
        let kept = crate::files::read_text(&folder.path().join("data/deep/a.txt"));
        assert_eq!(kept.unwrap(), "a");
        assert!(!folder.path().join("data/b.txt").exists());
    }
    let folder = folder(&[("tools.py", ""), ("tools.json", DEFINITIONS)]);
    std::fs::create_dir_all(folder.path().join("data/empty")).unwrap();
    for (keys, expected) in [
        (
            "folder = \"data\"",
            "task.toml line 4 column 10: `tool.folder` names /FOLDER/data, which has no files",
        ),
        ("folder = \"date\"", "/FOLDER/date: No such file"),
        ("folder = \".\"", "/FOLDER/task.toml: "),
        (
            "folder = \"data\"\nstateless = true",
            "task.toml line 4 column 10: `tool.folder` is of a process of one conversation, but",
        ),
    ] {
        let error = toolset(folder.path(), &format!("{RUN}{keys}")).unwrap_err();
        let error = error.replace(folder.path().to_str().unwrap(), "/FOLDER");
        assert!(error.starts_with(expected), "{keys}: {error}");
    }
    std::os::unix::fs::symlink(".", folder.path().join("data/loop")).unwrap();
    let error = toolset(folder.path(), &format!("{RUN}folder = \"data\"")).unwrap_err();
    assert!(
        error.contains("has a link to a folder, \"loop\""),
        "{error}"
    );
}
