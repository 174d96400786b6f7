//! What clients do wrong, on purpose or not.

use super::*;

#[test]
fn what_cannot_be_served_is_refused_in_openais_shape() {
    let server = Server::start(&["tiny"]);
    let error = |body: Json, status| server.refused(CHAT, body.to_string().as_bytes(), status);
    assert_eq!(error(chat(json!({"top_k": -5})), 400)["param"], "top_k");
    assert_eq!(
        error(chat(json!({"model": "gpt-4"})), 404)["code"],
        "model_not_found"
    );
    // Few more than fit; and so many that they are not tokenized to know it.
    for (words, found) in [
        (1_500, " tokens"),
        (700_000, "bytes, more than 1024 tokens can have"),
    ] {
        let long = error(
            chat(json!({"messages": [{"role": "user", "content": "word ".repeat(words)}]})),
            400,
        );
        let message = long["message"].as_str().unwrap();
        assert_eq!(long["code"], "context_length_exceeded");
        assert!(
            message.contains("maximum context length is 1024 tokens") && message.contains(found),
            "{message}"
        );
    }
    let unread =
        error(chat(json!({"chat_template_kwargs": {"level": 1}})), 400)["message"].to_string();
    assert!(
        unread.contains("the chat template does not read `level`"),
        "{unread}"
    );
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        b"{\"model\": \"tiny\"}",
    ] {
        server.refused(CHAT, body, 400);
        server.refused(TEXT, body, 400);
    }
    let (status, _, text) = server.ask(
        "POST",
        TEXT,
        "",
        json!({"model": "tiny", "prompt": [999_999]})
            .to_string()
            .as_bytes(),
    );
    assert!(
        status == 400
            && error_of(&text)["message"]
                .as_str()
                .unwrap()
                .contains("vocabulary"),
        "{text}"
    );
    // A body of 10 MB, said and unsaid.
    let large =
        chat(json!({"messages": [{"role": "user", "content": "x".repeat(10 << 20)}]})).to_string();
    server.refused(CHAT, large.as_bytes(), 413);
    let get = |method: &str, path: &str| server.ask(method, path, "", b"");
    for (method, path, expected) in [
        ("GET", "/v1/embeddings", 404),
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("GET", "/", 404),
    ] {
        let (status, _, text) = get(method, path);
        assert_eq!(status, expected, "{method} {path}");
        error_of(&text);
    }
    // A page of another site asks through the user's browser.
    for header in ["Origin: https://evil.example\r\n", "Host: evil.example\r\n"] {
        let mut socket = TcpStream::connect(server.address).unwrap();
        let host = if header.starts_with("Host") {
            String::new()
        } else {
            format!("Host: {}\r\n", server.address)
        };
        write!(
            socket,
            "GET /v1/models HTTP/1.1\r\n{host}{header}Connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answered(&answer).0, 403, "{header}");
    }
    let mut socket = TcpStream::connect(server.address).unwrap();
    write!(socket, "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answered(&answer).0, 415);
    // It still serves.
    server.post(CHAT, &chat(json!({})));
}

/// What is sent of a request, and the status of its answer.
fn status_of(server: &Server, sent: &str, and_closed: bool) -> u16 {
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.write_all(sent.as_bytes()).unwrap();
    if and_closed {
        socket.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut answer = String::new();
    _ = socket.read_to_string(&mut answer);
    if answer.is_empty() {
        0
    } else {
        answered(&answer).0
    }
}

#[test]
fn a_body_that_breaks_off_is_not_served() {
    let server = Server::start(&["tiny"]);
    let body = chat(json!({})).to_string();
    let head = |rest: &str| {
        format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{rest}\r\n\r\n"
        )
    };
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let chunked = head("Transfer-Encoding: chunked");
    assert_eq!(
        status_of(
            &server,
            &format!("{chunked}{}0\r\n\r\n", chunk(&body)),
            false
        ),
        200
    );
    // A whole document has come, and then something else than the end.
    assert_eq!(
        status_of(&server, &format!("{chunked}{}zz\r\n", chunk(&body)), false),
        400
    );
    for cut in [
        format!("{chunked}{}", chunk(&body)),
        format!(
            "{}{body}",
            head(&format!("Content-Length: {}", body.len() + 9))
        ),
    ] {
        // The answer may find the connection closed.
        assert!(matches!(status_of(&server, &cut, true), 0 | 400), "{cut}");
    }
}

/// They announce more than there is room for, and send a byte of it; or nothing at all.
#[test]
fn clients_that_stand_still_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    // Room for 64 connections.
    let limited = ["-c", "ulimit -n 128; exec \"$0\" serve \"$@\"", PROGRAM];
    let command = crate::program::started_by(Command::new("sh"), folder.path(), &limited);
    let server = Server::started(command, &["tiny", "--threads", "1"], folder);
    let announce = |bytes: usize| {
        let mut socket = TcpStream::connect(server.address).unwrap();
        write!(socket, "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n{{")
            .unwrap();
        socket
    };
    let slow: Vec<TcpStream> = (0..70).map(|_| announce(4 << 20)).collect();
    server.post(CHAT, &chat(json!({})));
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    assert_eq!(server.ask("GET", "/health", "", b"").0, 200);
    server.post(CHAT, &chat(json!({})));
    // Who waits for an answer is not closed for who comes later.
    let body =
        json!({"model": "tiny", "prompt": "a", "max_tokens": 400, "ignore_eos": true}).to_string();
    let mut early = server.send("POST", TEXT, "", body.as_bytes());
    let later: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert_eq!(answered(&answer).0, 200);
    drop((slow, idle, later));
}

#[test]
fn many_long_completions_leave_rows_for_others() {
    let server = Server::start(&["tiny", "--threads", "1"]);
    let mut many = long();
    (many["n"], many["max_tokens"]) = (128.into(), 900.into());
    let socket = server.send("POST", TEXT, "", many.to_string().as_bytes());
    until("they are decoded", || server.metric("running_rows") > 0.0);
    for _ in 0..3 {
        server.post(CHAT, &chat(json!({})));
    }
    // They were answered beside it, not after it.
    assert!(server.metric("waiting_requests") > 0.0 && server.metric("running_rows") >= 8.0);
    drop(socket);
}

/// Endless as far as a test is concerned.
fn long() -> Json {
    json!({"model": "tiny", "prompt": "a", "n": 8, "max_tokens": 400, "ignore_eos": true})
}

#[test]
fn rows_of_clients_that_vanish_are_freed() {
    let server = Server::start(&["tiny", "--threads", "1"]);
    for stream in [true, false] {
        let lost = server.metric("lost_clients_total");
        let mut body = long();
        body["stream"] = stream.into();
        let mut socket = server.send("POST", TEXT, "", body.to_string().as_bytes());
        if stream {
            socket.read_exact(&mut [0; 100]).unwrap();
        }
        until("the rows are decoded", || {
            server.metric("running_rows") > 0.0
        });
        let before = server.metric("generation_tokens_total");
        drop(socket);
        until("the rows are freed", || {
            server.metric("running_rows") == 0.0
        });
        assert_eq!(
            server.metric("lost_clients_total"),
            lost + 1.0,
            "stream: {stream}"
        );
        assert!(server.metric("generation_tokens_total") - before < 8.0 * 400.0);
    }
    server.post(CHAT, &chat(json!({})));
}

#[test]
fn a_full_queue_refuses_until_there_is_room() {
    let server = Server::start(&["tiny", "--threads", "1", "--queue", "2"]);
    let mut first = long();
    // More rows than one thread decodes: some wait.
    first["n"] = 128.into();
    let socket = server.send("POST", TEXT, "", first.to_string().as_bytes());
    until("some wait", || server.metric("waiting_requests") >= 2.0);
    let (status, headers, text) =
        server.ask("POST", CHAT, "", chat(json!({})).to_string().as_bytes());
    assert_eq!(
        (status, error_of(&text)["type"].as_str()),
        (429, Some("rate_limit_error"))
    );
    assert!(headers.contains("retry-after: 1"), "{headers}");
    assert!(
        text.contains("as many as this server lets (--queue)"),
        "{text}"
    );
    assert_eq!(server.metric("refused_total"), 1.0);
    drop(socket);
    until("there is room", || {
        let (status, ..) = server.ask("POST", CHAT, "", chat(json!({})).to_string().as_bytes());
        status == 200
    });
}

#[test]
fn a_thousand_connections_are_all_answered() {
    let server = Server::start(&["tiny"]);
    let body = json!({"model": "tiny", "prompt": "a", "max_tokens": 2}).to_string();
    // Open at once, most of them with nothing to say yet.
    let idle: Vec<TcpStream> = (0..400)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    let asked: Vec<TcpStream> = (0..600)
        .map(|_| server.send("POST", TEXT, "", body.as_bytes()))
        .collect();
    let mut done = 0;
    for mut socket in asked {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        match answered(&answer) {
            (200, _, _) => done += 1,
            (status, _, text) => panic!("{status} {text}"),
        }
    }
    // As many wait: the queue is longer.
    assert_eq!(done, 600);
    for mut socket in idle {
        write!(
            socket,
            "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        // It may have waited longer than a head may take.
        assert!(
            answer.is_empty() || answered(&answer).0 == 200 || answered(&answer).0 == 408,
            "{answer}"
        );
    }
}

#[test]
fn a_server_that_is_told_to_stop_completes_what_was_begun() {
    let mut server = Server::start(&["tiny", "--threads", "1"]);
    let mut body = long();
    (body["stream"], body["n"]) = (true.into(), 1.into());
    let mut socket = server.send("POST", TEXT, "", body.to_string().as_bytes());
    until("it is decoded", || server.metric("running_rows") > 0.0);
    assert!(
        Command::new("kill")
            .args(["-TERM", &server.child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (_, _, text) = answered(&answer);
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let output = Command::new(PROGRAM)
        .args(["serve", "--help"])
        .output()
        .unwrap();
    assert!(output.status.success());
}
