//! Where and to whom the server listens.

use std::time::Duration;

use super::{COUNT, INBOUND_BYTES, MESSAGE_BYTES, METADATA_BYTES, Reader, SECONDS, THREADS};
use crate::grpc;

impl Reader {
    pub(super) fn server(&mut self, server: &mut grpc::Config) {
        self.listeners(server);
        self.seconds("server.default_deadline_seconds", &mut server.default_deadline);
        self.seconds("server.answer_seconds", &mut server.answer);
        self.seconds("server.drain_seconds", &mut server.drain);
        self.seconds("server.keepalive_seconds", &mut server.keepalive);
        self.seconds("server.keepalive_timeout_seconds", &mut server.keepalive_timeout);
        self.within("server.max_connections", &mut server.max_connections, COUNT);
        self.within("server.max_message_bytes", &mut server.max_message_bytes, MESSAGE_BYTES);
        self.within("server.max_metadata_bytes", &mut server.max_metadata_bytes, METADATA_BYTES);
        self.within("server.max_inbound_bytes", &mut server.max_inbound_bytes, INBOUND_BYTES);
        self.within("server.threads", &mut server.threads, THREADS);
        if server.max_inbound_bytes < server.max_message_bytes {
            self.problems.push(format!(
                "server.max_inbound_bytes: {} is below server.max_message_bytes = {}: the largest request could never be taken",
                server.max_inbound_bytes, server.max_message_bytes
            ));
        }
    }

    /// Where to listen: `none` turns a listener off, but not both.
    fn listeners(&mut self, server: &mut grpc::Config) {
        self.address("server.listen", &mut server.listen, "127.0.0.1:7700");
        server.unix_socket = self.path("server.unix_socket", "a path");
        if server.listen.is_none() && server.unix_socket.is_none() {
            self.problems.push("server.listen is none and server.unix_socket is too: nobody could call".to_owned());
        }
    }

    /// Who may call, and how nobody else hears it.
    pub(super) fn security(&mut self, server: &mut grpc::Config) {
        let [certificate, key, client_ca] =
            ["tls.certificate", "tls.key", "tls.client_ca"].map(|name| self.path(name, "a PEM file"));
        server.tls = match (certificate, key, client_ca) {
            (Some(certificate), Some(key), client_ca) => Some(grpc::TlsConfig { certificate, key, client_ca }),
            (None, None, None) => None,
            _ => {
                let problem = "tls.certificate and tls.key are wanted, both, before tls.client_ca or one of them";
                self.problems.push(problem.to_owned());
                None
            }
        };
        server.tokens = self.path("auth.tokens", "a file of tokens");
        self.take("server.insecure_listen", &mut server.insecure_listen, |_| true, "true or false");
        self.seconds("server.reload_seconds", &mut server.reload);
        let mut age = server.max_connection_age.as_secs();
        self.take(
            "server.max_connection_age_seconds",
            &mut age,
            |given| *given <= *SECONDS.end(),
            "seconds, 0 (never) to 86400",
        );
        server.max_connection_age = Duration::from_secs(age);
    }
}
