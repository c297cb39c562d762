use crate::SOON;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A callback whose body the test withholds.
#[derive(Debug)]
pub struct HeldCall {
    stream: TcpStream,
    body: String,
}

impl HeldCall {
    /// Sends the head, and returns when the gateway asks for the body (`100 Continue`).
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
            let byte = timeout(SOON, stream.read_u8()).await;
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
        self.half_close().await
    }

    /// Shuts down the sending side without the rest of the body, and returns the answer's status line and body.
    pub async fn half_close(mut self) -> (String, String) {
        let mut answer = Vec::new();
        timeout(SOON, self.stream.read_to_end(&mut answer))
            .await
            .expect("an answer in time")
            .expect("an answer");
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.lines().next().unwrap_or_default();
        (status.to_owned(), body.to_owned())
    }
}
