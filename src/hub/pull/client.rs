//! Requests to the endpoint: the token where it belongs, silence that ends, and answers in words.

use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};

use super::{PullError, PullSettings};

/// An agent for one endpoint.
pub(super) struct Client {
    agent: Agent,
    pub(super) endpoint: String,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &PullSettings) -> Result<Self, PullError> {
        let endpoint = settings.endpoint.clone();
        let is_here = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|here| endpoint.starts_with(here));
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(endpoint.starts_with("https://"))
            .user_agent(concat!("grpo-tui/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(settings.stall.min(Duration::from_secs(15))))
            .timeout_per_read(Some(settings.stall))
            .timeout_per_write(Some(settings.stall));
        if is_here {
            // No proxy stands between this machine and itself.
            config = config.proxy(None);
        }
        if let Some(path) = &settings.certificates {
            let pem = std::fs::read(path).map_err(|source| PullError::Disk { path: path.clone(), source })?;
            let authorities: Vec<Certificate<'static>> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::from(authorities)).build());
        }
        Ok(Self { agent: config.build().into(), endpoint, token: settings.token.clone() })
    }

    /// The answer to a GET, of the bytes from `from` on.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<http::Response<Body>, PullError> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            // The agent drops it at every redirect.
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| network(url, &error))
    }

    /// What a status that is no success means.
    pub(super) fn refused(&self, url: &str, status: u16) -> PullError {
        let has_token = self.token.is_some();
        let remedy = match status {
            401 | 403 if has_token => {
                "the token in HF_TOKEN may not read this model: accept its licence on its page, or take another token"
            }
            401 | 403 => "the model is private, gated or does not exist: check the name, accept its licence on its page, and set HF_TOKEN",
            404 => "there is no such model, revision or file: check the name",
            429 => "too many requests: wait some minutes, or set HF_TOKEN",
            500..=599 => "the server has trouble of its own: try again later",
            _ => "check HF_ENDPOINT",
        };
        PullError::Refused { url: url.to_owned(), status, remedy: remedy.to_owned() }
    }
}

/// A failure of the connection in words.
pub(super) fn network(url: &str, error: &ureq::Error) -> PullError {
    let problem = match error {
        ureq::Error::Timeout(_) => "the server says nothing".to_owned(),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    let unreachable = matches!(error, ureq::Error::HostNotFound | ureq::Error::ConnectionFailed)
        || matches!(error, ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused);
    let hint = if unreachable { " (HF_ENDPOINT names another server, HTTPS_PROXY a proxy)" } else { "" };
    PullError::Network { url: url.to_owned(), problem, hint: hint.to_owned() }
}
