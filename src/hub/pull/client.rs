//! Requests to the endpoint: the token only to its own server, timeouts, and errors as sentences.

use std::time::Duration;

use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};

use super::{PullError, PullSettings};

/// Redirects that are followed for one request.
const MOST_REDIRECTS: usize = 10;

/// An agent for one endpoint.
pub(super) struct Client {
    agent: Agent,
    pub(super) endpoint: String,
    origin: Origin,
    token: Option<String>,
}

/// Scheme, host and port: where the token goes, and nowhere else.
#[derive(PartialEq)]
struct Origin(String, String, u16);

impl Origin {
    /// None for what is no http address, or holds a name and password.
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?.to_lowercase(), uri.authority()?);
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let plain = !authority.host().is_empty() && !authority.as_str().contains('@');
        plain.then(|| Self(scheme, authority.host().to_lowercase(), authority.port_u16().unwrap_or(usual)))
    }

    fn is_loopback(&self) -> bool {
        let host = self.1.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl Client {
    pub(super) fn new(settings: &PullSettings) -> Result<Self, PullError> {
        let endpoint = settings.endpoint.clone();
        let origin = Origin::of(&endpoint).ok_or_else(|| PullError::Endpoint { endpoint: endpoint.clone() })?;
        if origin.0 == "http" && !origin.is_loopback() && settings.token.is_some() {
            return Err(PullError::TokenInClear { endpoint });
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(origin.0 == "https")
            // Followed by hand: the token stays with the endpoint, whatever stands between.
            .max_redirects(0)
            .user_agent(concat!("grpo-tui/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(settings.stall.min(Duration::from_secs(15))))
            .timeout_recv_response(Some(settings.stall))
            .timeout_per_read(Some(settings.stall))
            .timeout_per_write(Some(settings.stall));
        if origin.is_loopback() {
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
        Ok(Self { agent: config.build().into(), endpoint, origin, token: settings.token.clone() })
    }

    /// The answer to a GET, of the bytes from `from` on. Redirects are followed; the token goes along to the endpoint
    /// alone.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<http::Response<Body>, PullError> {
        let broken = |problem: String| PullError::Network { url: url.to_owned(), problem, hint: String::new() };
        let mut place = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.get(&place);
            if let Some(token) = self.token.as_ref().filter(|_| Origin::of(&place).as_ref() == Some(&self.origin)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| network(url, &error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get("location").and_then(|location| location.to_str().ok());
            place = location
                .and_then(|location| redirect_target(&place, location))
                .ok_or_else(|| broken("a redirect leads nowhere".to_owned()))?;
        }
        Err(broken(format!("more than {MOST_REDIRECTS} redirects")))
    }

    /// What a status that is no success means.
    pub(super) fn status_error(&self, url: &str, status: u16) -> PullError {
        let has_token = self.token.is_some();
        let remedy = match status {
            401 | 403 if has_token => {
                "the token in HF_TOKEN may not read this model: accept its licence on its page, or take another token"
            }
            401 | 403 => {
                "the model is private, gated or does not exist: check the name, accept its licence on its page, and set HF_TOKEN"
            }
            404 => "no such model, revision or file: check the name",
            429 => "too many requests: wait some minutes, or set HF_TOKEN",
            500..=599 => "the server has an internal error: try again later",
            _ => "check HF_ENDPOINT",
        };
        PullError::Refused { url: url.to_owned(), status, remedy: remedy.to_owned() }
    }
}

/// Where a redirect leads that came from `place`: a whole address, or a path on the same server.
fn redirect_target(place: &str, location: &str) -> Option<String> {
    let (scheme, rest) = place.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    match location {
        _ if location.starts_with("//") => Some(format!("{scheme}:{location}")),
        _ if location.starts_with('/') => Some(format!("{scheme}://{host}{location}")),
        _ => Origin::of(location).map(|_| location.to_owned()),
    }
}

/// A failure of the connection in words.
pub(super) fn network(url: &str, error: &ureq::Error) -> PullError {
    let problem = match error {
        ureq::Error::Timeout(_) => "the server does not respond".to_owned(),
        ureq::Error::HostNotFound => "unknown host".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    let unreachable = matches!(error, ureq::Error::HostNotFound | ureq::Error::ConnectionFailed)
        || matches!(error, ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused);
    let hint = if unreachable { " (HF_ENDPOINT names another server, HTTPS_PROXY a proxy)" } else { "" };
    PullError::Network { url: url.to_owned(), problem, hint: hint.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_known_by_scheme_host_and_port() {
        let same = |one: &str, other: &str| Origin::of(one).unwrap() == Origin::of(other).unwrap();
        assert!(same("https://huggingface.co", "https://HuggingFace.co:443/api/x?y#z"));
        for other in [
            "http://huggingface.co",
            "https://huggingface.co:8443",
            "https://huggingface.co.evil.org",
            "https://cdn.huggingface.co",
        ] {
            assert!(!same("https://huggingface.co", other), "{other}");
        }
        let here = |url: &str| Origin::of(url).is_some_and(|origin| origin.is_loopback());
        assert!(
            ["http://127.0.0.1:8080", "http://localhost/x", "http://[::1]:80", "http://127.8.9.1"]
                .into_iter()
                .all(here)
        );
        let elsewhere = [
            "http://127.0.0.1.evil.org",
            "http://localhost.evil.org",
            "http://127.0.0.1@evil.org",
            "http://mirror",
            "localhost",
        ];
        assert!(!elsewhere.into_iter().any(here));
    }

    #[test]
    fn a_redirect_is_an_address_or_a_path() {
        let check = |location: &str, expected: Option<&str>| {
            assert_eq!(redirect_target("https://a.org:1/b/c?d", location).as_deref(), expected, "{location}");
        };
        check("/x?y", Some("https://a.org:1/x?y"));
        check("//b.org/x", Some("https://b.org/x"));
        check("https://b.org/x", Some("https://b.org/x"));
        check("x", None);
        check("file:///etc/passwd", None);
    }
}
