//! Tests: where a token is sent, and where it is not.

use grpo_tui::hub::{PullSettings, find_model};

use super::{LISTING, Reply, Server, WEIGHTS, path_of, pulled};

#[test]
fn a_token_never_travels_in_the_clear() {
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    let settings = |endpoint: &str, token: Option<&str>| PullSettings {
        endpoint: endpoint.to_owned(),
        token: token.map(str::to_owned),
        ..server.settings(cache.path())
    };
    for endpoint in [
        "http://mirror.invalid",
        "http://127.0.0.1.mirror.invalid",
        "http://localhost.mirror.invalid:8080",
    ] {
        let message = pulled(&settings(endpoint, Some("hf_secret"))).unwrap_err();
        assert!(
            message.contains("unencrypted")
                && message.contains("use https://")
                && !message.contains("hf_secret"),
            "{message}"
        );
        let message = pulled(&settings(endpoint, None)).unwrap_err();
        assert!(!message.contains("unencrypted"), "{message}");
    }
    for endpoint in [
        "http://user:word@127.0.0.1",
        "ftp://mirror.invalid",
        "mirror",
    ] {
        assert!(
            pulled(&settings(endpoint, None))
                .unwrap_err()
                .contains("is not a server address"),
            "{endpoint}"
        );
    }
    assert!(server.state.lock().unwrap().requests.is_empty());
}

#[test]
fn a_renamed_repository_is_read_with_the_token() {
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    let renamed = "/renamed".to_owned();
    let listing = server.state.lock().unwrap().files[LISTING].clone();
    server
        .state
        .lock()
        .unwrap()
        .files
        .insert(renamed.clone(), listing);
    server.reply(LISTING, &[Reply::Redirect(renamed.clone())]);
    server.reply(
        WEIGHTS,
        &[Reply::Redirect(format!(
            "{}{}",
            server.address,
            path_of("moved")
        ))],
    );
    let weights = server.state.lock().unwrap().files[&path_of(WEIGHTS)].clone();
    server
        .state
        .lock()
        .unwrap()
        .files
        .insert(path_of("moved"), weights);
    let settings = PullSettings {
        token: Some("hf_secret".to_owned()),
        ..server.settings(cache.path())
    };
    pulled(&settings).unwrap();
    let state = server.state.lock().unwrap();
    for path in [renamed, path_of("moved")] {
        assert!(
            state
                .requests
                .iter()
                .any(|request| request.0 == path && request.2),
            "{path} without the token"
        );
    }
    drop(state);
    server.reply(LISTING, &vec![Reply::Redirect(LISTING.to_owned()); 20]);
    assert!(
        pulled(&settings)
            .unwrap_err()
            .contains("more than 10 redirects")
    );
}

#[test]
fn a_redirect_is_followed_without_the_token() {
    let (server, storage, cache) = (
        Server::of_model(),
        Server::start(),
        tempfile::tempdir().unwrap(),
    );
    let weights = find_model("tiny")
        .unwrap()
        .read(WEIGHTS)
        .unwrap()
        .into_owned();
    storage
        .state
        .lock()
        .unwrap()
        .files
        .insert("/stored".to_owned(), weights);
    let elsewhere = format!(
        "{}/stored",
        storage.address.replace("127.0.0.1", "localhost")
    );
    server.reply(
        WEIGHTS,
        &[
            Reply::Redirect(elsewhere.clone()),
            Reply::Redirect(elsewhere),
        ],
    );
    storage.reply("/stored", &[Reply::HangUp(1000)]);
    let settings = PullSettings {
        token: Some("hf_secret".to_owned()),
        ..server.settings(cache.path())
    };
    pulled(&settings).unwrap();
    assert_eq!(storage.ranges("/stored"), [0, 1000]);
    assert!(
        storage
            .state
            .lock()
            .unwrap()
            .requests
            .iter()
            .all(|request| !request.2),
        "the token went along"
    );
    assert!(
        server
            .state
            .lock()
            .unwrap()
            .requests
            .iter()
            .all(|request| request.2),
        "the endpoint needs it"
    );
}
