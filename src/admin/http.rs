//! As much HTTP/1.1 as a scraper and a probe need: GET and HEAD, one request a connection, bounded
//! in size, time and number. Absent on purpose: request bodies, keep-alive, TLS.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::metrics::{self, render};
use super::{Phase, Source};
use crate::base::limits::{
    ADMIN_CONNECTIONS_MAX, ADMIN_HEADERS_MAX, ADMIN_REQUEST_BYTES_MAX, ADMIN_REQUEST_TIMEOUT,
};

/// Pause after an accept that failed: without descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub(super) async fn accept(listener: TcpListener, source: Rc<dyn Source>) -> io::Result<()> {
    let open = Rc::new(Cell::new(0));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if open.get() >= ADMIN_CONNECTIONS_MAX {
            continue;
        }
        let place = Place::take(&open);
        let source = source.clone();
        tokio::task::spawn_local(async move {
            let _place = place;
            if let Ok(Err(error)) = timeout(ADMIN_REQUEST_TIMEOUT, converse(stream, &*source)).await
            {
                tracing::debug!(%error, "admin: connection lost");
            }
        });
    }
}

/// One of [`ADMIN_CONNECTIONS_MAX`]; given back when dropped.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(open: &Rc<Cell<usize>>) -> Place {
        open.set(open.get() + 1);
        Place(open.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn converse(mut stream: TcpStream, source: &dyn Source) -> io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    let response = loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        if let Some(response) = answer(&head, source) {
            break response;
        }
    };
    stream.write_all(&response).await?;
    stream.shutdown().await
}

/// The whole response to the request in `head`, or `None` while that is incomplete.
fn answer(head: &[u8], source: &dyn Source) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; ADMIN_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let too_large = || response(431, TEXT, "the request is too large\n", false);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() < ADMIN_REQUEST_BYTES_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(too_large());
        }
        Err(_) => return Some(response(400, TEXT, "this is not HTTP/1.1\n", false)),
    }
    let is_head = match request.method.unwrap_or("") {
        "GET" => false,
        "HEAD" => true,
        _ => return Some(response(405, TEXT, "only GET and HEAD\n", false)),
    };
    let path = request.path.unwrap_or("");
    Some(match path.split('?').next().unwrap_or("") {
        "/metrics" => response(200, metrics::CONTENT_TYPE, &render(source), is_head),
        // A shard that fails for good ends the process: whoever answers is alive.
        "/healthz" => response(200, TEXT, "alive\n", is_head),
        "/readyz" => match source.phase() {
            Phase::Ready => response(200, TEXT, "ready\n", is_head),
            Phase::Starting => response(503, TEXT, "starting\n", is_head),
            Phase::Draining => response(503, TEXT, "draining\n", is_head),
        },
        "/" => response(200, TEXT, "/metrics\n/healthz\n/readyz\n", is_head),
        _ => response(404, TEXT, "try /metrics, /healthz or /readyz\n", is_head),
    })
}

const TEXT: &str = "text/plain; charset=utf-8";

fn response(status: u16, content_type: &str, body: &str, is_head: bool) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        other => unreachable!("no response has status {other}"),
    };
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         {allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len(),
    );
    let mut bytes = head.into_bytes();
    if !is_head {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Reloads;
    use crate::base::metrics::{Counters, Gauges};
    use std::io::{Read, Write};

    struct Fixed(Phase);

    impl Source for Fixed {
        fn shards(&self) -> Vec<(Counters, Gauges)> {
            vec![Default::default()]
        }

        fn phase(&self) -> Phase {
            self.0
        }

        fn started(&self) -> f64 {
            0.0
        }

        fn store(&self) -> Option<crate::base::metrics::StoreNumbers> {
            None
        }

        fn log_lines_dropped(&self) -> u64 {
            0
        }

        fn reloads(&self) -> Reloads {
            Reloads { taken: 0, refused: 0, last: 0.0 }
        }
    }

    fn status(request: &[u8], phase: Phase) -> Option<u16> {
        let response = answer(request, &Fixed(phase))?;
        let text = String::from_utf8(response).expect("responses are UTF-8");
        Some(text.split(' ').nth(1).expect("a status").parse().expect("a number"))
    }

    #[test]
    fn requests_and_their_answers() {
        use Phase::{Draining, Ready, Starting};
        for (request, phase, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Ready, 200),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", Starting, 200),
            ("GET /healthz HTTP/1.1\r\n\r\n", Starting, 200),
            ("GET /healthz HTTP/1.1\r\n\r\n", Draining, 200),
            ("GET /readyz HTTP/1.1\r\n\r\n", Ready, 200),
            ("GET /readyz HTTP/1.1\r\n\r\n", Starting, 503),
            ("GET /readyz HTTP/1.1\r\n\r\n", Draining, 503),
            ("HEAD / HTTP/1.1\r\n\r\n", Ready, 200),
            ("GET /other HTTP/1.1\r\n\r\n", Ready, 404),
            ("POST /metrics HTTP/1.1\r\n\r\n", Ready, 405),
            ("OPTIONS sip:a SIP/2.0\r\n\r\n", Ready, 400),
            ("\x16\x03\x01 TLS", Ready, 400),
        ] {
            assert_eq!(status(request.as_bytes(), phase), Some(expected), "{request} {phase:?}");
        }
    }

    #[test]
    fn every_truncation_waits_for_more() {
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost:9090\r\nAccept: */*\r\n\r\n";
        for end in 0..request.len() {
            assert_eq!(status(&request[..end], Phase::Ready), None, "after {end} bytes");
        }
    }

    #[test]
    fn a_head_has_a_length_and_no_body() {
        let head = answer(b"HEAD /healthz HTTP/1.1\r\n\r\n", &Fixed(Phase::Ready));
        let text = String::from_utf8(head.expect("complete")).expect("UTF-8");
        assert!(text.contains("Content-Length: 6\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn heads_without_end_are_refused() {
        let mut request = b"GET / HTTP/1.1\r\nX: ".to_vec();
        request.resize(ADMIN_REQUEST_BYTES_MAX, b'x');
        assert_eq!(status(&request, Phase::Ready), Some(431));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(ADMIN_HEADERS_MAX + 1));
        assert_eq!(status(many.as_bytes(), Phase::Ready), Some(431));
    }

    #[test]
    fn connections_are_bounded_and_served_again_after() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        let client = move || {
            let connect = || std::net::TcpStream::connect(address).expect("connect");
            let idle: Vec<_> = (0..ADMIN_CONNECTIONS_MAX).map(|_| connect()).collect();
            let mut refused = Vec::new();
            // The server closes it without a word; a reset is as good as an end.
            let read = connect().read_to_end(&mut refused);
            assert!(read.is_err() || refused.is_empty());
            drop(idle);
            for _ in 0..100 {
                let mut stream = connect();
                let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\n\r\n");
                let mut text = String::new();
                if stream.read_to_string(&mut text).is_ok() && text.starts_with("HTTP/1.1 200 ") {
                    return true;
                }
            }
            false
        };
        tokio_uring::start(async move {
            let source: Rc<dyn Source> = Rc::new(Fixed(Phase::Ready));
            let server = tokio_uring::spawn(crate::admin::serve(listener, source));
            let served = tokio::task::spawn_blocking(client).await;
            server.abort();
            assert!(served.expect("no panic in the client"));
        });
    }
}
