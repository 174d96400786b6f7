//! Requests to the endpoint: token only to its own server, timeouts, errors as sentences.

use std::path::Path;
use std::time::Duration;

use ureq::{Agent, Body, http};

use super::{PullError, PullSettings};
use crate::http::{Origin, agent_config, problem_of};

/// Limit per request.
const MAX_REDIRECTS: usize = 10;

pub(super) struct Client {
    agent: Agent,
    pub(super) endpoint: String,
    origin: Origin,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &PullSettings) -> Result<Self, PullError> {
        let endpoint = settings.endpoint.clone();
        let origin = Origin::from_url(&endpoint).ok_or_else(|| {
            PullError::Other(format!(
                "HF_ENDPOINT = `{endpoint}` is not a server address without user and password; it looks like `https://huggingface.co`"
            ))
        })?;
        if !origin.is_encrypted() && !origin.is_loopback() && settings.token.is_some() {
            return Err(PullError::Other(format!(
                "HF_ENDPOINT = {endpoint} would carry HF_TOKEN unencrypted, so nothing was sent; use https://, or unset HF_TOKEN"
            )));
        }
        let certificates = settings.certificates.as_deref();
        let config = agent_config(&origin, certificates)
            .map_err(PullError::disk(certificates.unwrap_or(Path::new(""))))?
            .timeout_connect(Some(settings.stall.min(Duration::from_secs(15))))
            .timeout_recv_response(Some(settings.stall))
            .timeout_per_read(Some(settings.stall))
            .timeout_per_write(Some(settings.stall));
        Ok(Self {
            agent: config.build().into(),
            endpoint,
            origin,
            token: settings.token.clone(),
        })
    }

    /// GET of the bytes from `from` on. Follows redirects, sending the token only to the endpoint.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<http::Response<Body>, PullError> {
        let broken = |problem| PullError::broken(url, problem);
        let mut place = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&place);
            if let Some(token) = self
                .token
                .as_ref()
                .filter(|_| Origin::from_url(&place).as_ref() == Some(&self.origin))
            {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| network(url, &error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response
                .headers()
                .get("location")
                .and_then(|location| location.to_str().ok());
            place = location
                .and_then(|location| redirect_target(&place, location))
                .ok_or_else(|| broken("a redirect leads nowhere".to_owned()))?;
        }
        Err(broken(format!("more than {MAX_REDIRECTS} redirects")))
    }

    pub(super) fn status_error(&self, url: &str, status: u16) -> PullError {
        let has_token = self.token.is_some();
        let remedy = match status {
            401 | 403 if has_token => {
                "the token in HF_TOKEN may not read this model: accept its licence on its page, or use another token"
            }
            401 | 403 => {
                "the model is private, gated or does not exist: check the name, accept its licence on its page, and set HF_TOKEN"
            }
            404 => "no such model, revision or file: check the name",
            429 => "too many requests: wait some minutes, or set HF_TOKEN",
            500..=599 => "the server has an internal error: try again later",
            _ => "check HF_ENDPOINT",
        };
        PullError::Other(format!("{url}: the server answered {status}; {remedy}"))
    }
}

/// Target of a redirect from `place`: a URL, or a path on the same server.
fn redirect_target(place: &str, location: &str) -> Option<String> {
    let (scheme, rest) = place.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    match location {
        _ if location.starts_with("//") => Some(format!("{scheme}:{location}")),
        _ if location.starts_with('/') => Some(format!("{scheme}://{host}{location}")),
        _ => Origin::from_url(location).map(|_| location.to_owned()),
    }
}

pub(super) fn network(url: &str, error: &ureq::Error) -> PullError {
    let unreachable = matches!(
        error,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed
    ) || matches!(error, ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused);
    let hint = if unreachable {
        " (HF_ENDPOINT names another server, HTTPS_PROXY a proxy)"
    } else {
        ""
    };
    PullError::Network {
        url: url.to_owned(),
        problem: problem_of(error),
        hint,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_an_address_or_a_path() {
        let check = |location: &str, expected: Option<&str>| {
            assert_eq!(
                redirect_target("https://a.org:1/b/c?d", location).as_deref(),
                expected,
                "{location}"
            );
        };
        check("/x?y", Some("https://a.org:1/x?y"));
        check("//b.org/x", Some("https://b.org/x"));
        check("https://b.org/x", Some("https://b.org/x"));
        check("x", None);
        check("file:///etc/passwd", None);
    }
}
