//! HTTP to one server: its origin, an agent that follows no redirects, errors as sentences.

mod unix_socket; // ureq's transport over a Unix socket

use std::path::{Path, PathBuf};

use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::DefaultResolver;

/// Scheme, host and port; a key is sent nowhere else.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    scheme: String,
    pub host: String,
    port: u16,
}

impl Origin {
    /// `None` unless http(s) without user name and password.
    pub fn from_url(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?.to_lowercase(), uri.authority()?);
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let plain = !authority.host().is_empty() && !authority.as_str().contains('@');
        let (host, port) = (
            authority.host().to_lowercase(),
            authority.port_u16().unwrap_or(usual),
        );
        plain.then_some(Self { scheme, host, port })
    }

    pub fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }

    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

/// Settings of every agent: redirects are not followed, since the key must not go along, and
/// localhost uses no proxy. `certificates`: a PEM file that replaces the built-in CAs.
pub fn agent_config(
    origin: &Origin,
    certificates: Option<&Path>,
) -> std::io::Result<ConfigBuilder<AgentScope>> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .https_only(origin.is_encrypted())
        .max_redirects(0)
        .user_agent(concat!("grpo-tui/", env!("CARGO_PKG_VERSION")));
    if origin.is_loopback() {
        config = config.proxy(None);
    }
    if let Some(path) = certificates {
        let pem = std::fs::read(path)?;
        let authorities: Vec<Certificate<'static>> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        config = config.tls_config(
            TlsConfig::builder()
                .root_certs(RootCerts::from(authorities))
                .build(),
        );
    }
    Ok(config)
}

/// Sends all requests to a Unix socket; their URLs name localhost.
pub(crate) fn unix_agent(config: ConfigBuilder<AgentScope>, socket: PathBuf) -> Agent {
    Agent::with_parts(
        config.build(),
        unix_socket::UnixConnector(socket),
        DefaultResolver::default(),
    )
}

pub fn problem_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "the server does not respond".to_owned(),
        ureq::Error::HostNotFound => "unknown host".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_known_by_scheme_host_and_port() {
        let same = |one: &str, other: &str| {
            Origin::from_url(one).unwrap() == Origin::from_url(other).unwrap()
        };
        assert!(same(
            "https://huggingface.co",
            "https://HuggingFace.co:443/api/x?y#z"
        ));
        for other in [
            "http://huggingface.co",
            "https://huggingface.co:8443",
            "https://huggingface.co.evil.org",
            "https://cdn.huggingface.co",
        ] {
            assert!(!same("https://huggingface.co", other), "{other}");
        }
        let here = |url: &str| Origin::from_url(url).is_some_and(|origin| origin.is_loopback());
        assert!(
            [
                "http://127.0.0.1:8080",
                "http://localhost/x",
                "http://[::1]:80",
                "http://127.8.9.1"
            ]
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
}
