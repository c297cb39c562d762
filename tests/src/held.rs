use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than a shutdown may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A callback that the gateway has begun to read and can't answer before the test sends the rest.
#[derive(Debug)]
pub struct HeldCall {
    stream: TcpStream,
    body: String,
}

impl HeldCall {
    /// Sends all but the body, and returns when the gateway says that it waits for that: `100 Continue`.
    pub async fn begin(address: &str, operation_id: &str, body: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("a listener");
        let head = format!(
            "POST /callbackBeforeImportFriendsCommand HTTP/1.1\r\nHost: {address}\r\n\
             Content-Type: application/json\r\nOperationid: {operation_id}\r\nContent-Length: {}\r\n\
             Expect: 100-continue\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = timeout(PATIENCE, stream.read_u8()).await;
            answer.push(
                byte.expect("an interim answer in time")
                    .expect("an interim answer"),
            );
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
        Self {
            stream,
            body: body.to_owned(),
        }
    }

    /// Sends half of the body.
    pub async fn trickle(&mut self) {
        let (half, rest) = self.body.split_at(self.body.len() / 2);
        self.stream.write_all(half.as_bytes()).await.unwrap();
        self.body = rest.to_owned();
    }

    /// Sends the body and returns the answer's status line and body.
    pub async fn finish(mut self) -> (String, String) {
        self.stream.write_all(self.body.as_bytes()).await.unwrap();
        self.never_finish().await
    }

    /// Sends nothing more and returns the answer's status line and body.
    pub async fn never_finish(mut self) -> (String, String) {
        let mut answer = Vec::new();
        timeout(PATIENCE, self.stream.read_to_end(&mut answer))
            .await
            .expect("an answer in time")
            .expect("an answer");
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.lines().next().unwrap_or_default();
        (status.to_owned(), body.to_owned())
    }
}
