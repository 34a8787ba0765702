//! What keeps others from calling, and from hearing calls.

use std::net::IpAddr;

use super::findings::Findings;
use crate::cli::remote::{Remote, Shown};
use crate::client::{ClientError, Code};

/// Calls as a stranger would. That calls work with all that was given is known by then.
pub(super) async fn check(remote: &Remote, findings: &mut Findings) {
    let (encrypted, local) = (remote.address.starts_with("https://"), is_local(&remote.address));
    match strangers(remote, encrypted).await {
        Ok((open, certificate_does)) => judge(encrypted, local, open, certificate_does, findings),
        Err(why) => findings.warn("access", format!("could not tell: {why}")),
    }
}

/// Whether calls are taken from whoever shows nothing, and from whoever shows a certificate.
async fn strangers(remote: &Remote, encrypted: bool) -> Result<(bool, bool), String> {
    // Only who leaves out a certificate can be turned away for it.
    let open = is_taken(listed(remote, Shown::Nothing).await, encrypted && remote.connection.has_certificate())?;
    let certificate_does = open || is_taken(listed(remote, Shown::Certificate).await, false)?;
    Ok((open, certificate_does))
}

async fn listed(remote: &Remote, shown: Shown) -> Result<(), ClientError> {
    let client = remote.showing(shown).await.map_err(|fault| match fault.downcast::<ClientError>() {
        Ok(fault) => *fault,
        Err(fault) => ClientError::Other { code: Code::Unknown, message: fault.to_string() },
    })?;
    client.list_banks().await.map(drop)
}

/// Whether the call was taken; no answer says nothing, but for a connection that TLS ended since a certificate was left out.
fn is_taken(answer: Result<(), ClientError>, without_certificate: bool) -> Result<bool, String> {
    let Err(fault) = answer else { return Ok(true) };
    match (fault.code(), fault.to_string()) {
        (Code::Unauthenticated | Code::PermissionDenied, _) => Ok(false),
        (Code::Unavailable, why) if without_certificate && TURNED_AWAY.iter().any(|sign| why.contains(sign)) => Ok(false),
        (_, why) => Err(why),
    }
}

/// TLS says with an alert why it ends a connection, and the alert may be lost with the connection.
const TURNED_AWAY: [&str; 3] = ["fatal alert", "connection broke", "reset by peer"];

fn judge(encrypted: bool, local: bool, open: bool, certificate_does: bool, findings: &mut Findings) {
    match (encrypted, open) {
        (true, false) if certificate_does => {
            findings.ok("access", "calls are encrypted and need a client certificate; whoever has one may do everything");
        }
        (true, false) => findings.ok("access", "calls are encrypted and need a token"),
        (false, true) if local => {
            findings.ok("access", "calls are in the clear and need no token; this way they stay on this machine");
        }
        (false, false) if local => findings.ok("access", "calls need a token; they are in the clear, and stay on this machine"),
        (false, false) => findings.warn("access", "tokens cross the network in the clear: set tls.certificate and tls.key"),
        (false, true) => {
            let may = "calls need neither certificate nor token: whoever reaches the port may delete every bank";
            findings.warn("access", format!("{may}; set tls.certificate and tls.key, and auth.tokens or tls.client_ca"));
        }
        (true, true) => {
            let may = "calls are encrypted and need no token: whoever may connect may delete every bank";
            findings.warn("access", format!("{may}; set auth.tokens or tls.client_ca"));
        }
    }
}

/// Whether nobody else's traffic takes that way.
fn is_local(address: &str) -> bool {
    if address.starts_with("unix:") {
        return true;
    }
    let host =
        address.trim_start_matches("http://").trim_start_matches("https://").rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{ClientError, Code, is_local, is_taken};

    #[test]
    fn only_a_refusal_closes() {
        let other = |code| Err(ClientError::Other { code, message: "no".to_owned() });
        assert_eq!(is_taken(Ok(()), false), Ok(true));
        for code in [Code::Unauthenticated, Code::PermissionDenied] {
            assert_eq!(is_taken(other(code), false), Ok(false));
        }
        assert!(is_taken(other(Code::Internal), true).is_err());
        let late = || Err(ClientError::DeadlineExceeded("too late".to_owned()));
        assert_eq!(is_taken(late(), true), Err("too late".to_owned()));
        let away = |message: &str| Err(ClientError::Unavailable { message: message.to_owned(), retry_after: None });
        let busy = || away("the server is stopping");
        assert!(is_taken(busy(), true).is_err());
        let alert = || away("no negbank answers: received fatal alert: CertificateRequired");
        assert_eq!(is_taken(alert(), true), Ok(false));
        assert!(is_taken(alert(), false).is_err(), "no certificate was left out");
    }

    #[test]
    fn loopback_is_local_and_nothing_else() {
        for address in ["unix:/run/negbank.sock", "127.0.0.1:7700", "localhost:1", "[::1]:7700", "http://127.0.0.2:1"] {
            assert!(is_local(address), "{address}");
        }
        for address in ["10.0.0.1:7700", "negbank:7700", "[2001:db8::1]:7700", "localhost.example:1"] {
            assert!(!is_local(address), "{address}");
        }
    }
}
