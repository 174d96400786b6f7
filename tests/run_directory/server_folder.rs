//! The folder of a server: one server at a time, private to its user, found again by its model.

use std::os::unix::fs::MetadataExt;

use grpo_tui::run::{RunError, ServerFolder};

#[test]
fn the_second_server_is_refused_and_a_stale_socket_is_replaced_however_long_its_path_is() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep".repeat(50));
    let folder = ServerFolder::at(&path);
    assert!(folder.connect().is_err() && !folder.is_in_use());
    let (lock, listener) = folder.listen().unwrap();
    assert!(matches!(folder.listen(), Err(RunError::InUse { .. })));
    let mode = |path: &std::path::Path| path.metadata().unwrap().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("socket"))), (0o700, 0o600));
    assert!(folder.connect().is_ok() && folder.is_in_use());
    // As one that was killed leaves it.
    drop((lock, listener));
    assert!(path.join("socket").exists() && folder.connect().is_err() && !folder.is_in_use());
    let (_lock, _listener) = folder.listen().unwrap();
    assert!(folder.connect().is_ok());
    let [first, same, files, model] = [("a", "1"), ("a", "1"), ("a", "2"), ("b", "1")]
        .map(|(model, digest)| ServerFolder::of_model(model, digest));
    assert!(first == same && first != files && first != model);
}
