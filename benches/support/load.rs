//! A keep-alive HTTP/1.1 load generator that costs little: one thread, raw sockets, no allocation per request.
//!
//! Closed loop: each connection sends the next request when the answer to the last is complete, so N connections are
//! N requests in flight. Keeps true: every answer's status is checked, and a run with wrong answers is an error.
//! Does not do: pipelining, TLS, open-model arrival (that is what `tenantry load` is for).

use super::histogram::Histogram;
use super::rng::Rng;
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tenantry::kernel::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Appends one complete request to the buffer and says which status its answer must have.
pub(crate) type Fill = Rc<dyn Fn(&mut Rng, &mut Vec<u8>) -> u16>;

/// How hard and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Keep-alive connections, each with one request in flight.
    pub(crate) connections: usize,
    /// Run-in that is not counted.
    pub(crate) warmup: Duration,
    /// The counted window.
    pub(crate) window: Duration,
    /// Where the choice of requests starts.
    pub(crate) seed: u64,
}

/// What one run measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Answers per second in the window.
    pub(crate) per_second: f64,
    /// Latencies in microseconds.
    pub(crate) p50_us: f64,
    /// 95th percentile.
    pub(crate) p95_us: f64,
    /// 99th percentile.
    pub(crate) p99_us: f64,
    /// Every request sent, run-in included; divides the server's processor time.
    pub(crate) sent: u64,
    /// Bytes received per answer, heads included.
    pub(crate) bytes_per_answer: f64,
    /// Counted answers by where they came from, in the order of [`SOURCES`]; anything else is not counted.
    pub(crate) sources: [Source; SOURCES.len()],
}

/// The values of `X-Cache`.
pub(crate) const SOURCES: [&str; 4] = ["l1", "l2", "miss", "bypass"];

/// How often answers came from one place, and how fast.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Source {
    /// Counted answers.
    pub(crate) count: u64,
    /// Their median latency in microseconds.
    pub(crate) p50_us: f64,
}

impl Outcome {
    /// Share of the answers with an `X-Cache` header that came from memory or disk.
    pub(crate) fn hit_rate(&self) -> f64 {
        let [l1, l2, miss, bypass] = self.sources.map(|source| source.count);
        (l1 + l2) as f64 / (l1 + l2 + miss + bypass).max(1) as f64
    }
}

/// One answer, for set-up and checks.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    /// Status line and header lines.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("answer {} is not JSON: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

/// Renders a request; `headers` are complete lines without line ends.
pub(crate) fn render(method: &str, path: &str, headers: &[String], body: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    write_request(&mut out, method, path, headers, body);
    out
}

/// Appends a request to `out`.
pub(crate) fn write_request(out: &mut Vec<u8>, method: &str, path: &str, headers: &[String], body: Option<&str>) {
    for part in [method, " ", path, " HTTP/1.1\r\nHost: localhost\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for header in headers {
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(body) = body {
        out.extend_from_slice(
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()).as_bytes(),
        );
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.unwrap_or_default().as_bytes());
}

/// Sends one request on a fresh connection and returns the answer.
pub(crate) fn fetch(addr: SocketAddr, request: &[u8]) -> anyhow::Result<Answer> {
    on_this_thread(async {
        let mut connection = Connection::open(addr).await?;
        let framing = tokio::time::timeout(Duration::from_secs(60), connection.exchange(request)).await??;
        let head = String::from_utf8_lossy(&connection.buffer[..framing.head_len]).into_owned();
        let body = &connection.buffer[framing.head_len..framing.total_len];
        let body = if framing.chunked { unchunk(body)? } else { body.to_vec() };
        Ok(Answer { status: framing.status, head, body })
    })
}

/// Runs the load against `addr`.
pub(crate) fn drive(addr: SocketAddr, fill: &Fill, plan: Plan) -> anyhow::Result<Outcome> {
    on_this_thread(async {
        let started = clock::instant();
        let from = started + plan.warmup;
        let span = Span { from, until: from + plan.window };
        let tasks: Vec<_> = (0..plan.connections)
            .map(|at| {
                let rng = Rng::new(plan.seed.wrapping_mul(1_000_003).wrapping_add(at as u64));
                tokio::task::spawn_local(one_connection(addr, Rc::clone(fill), rng, span))
            })
            .collect();
        let mut all = Tally::default();
        for task in tasks {
            all.add(&task.await??);
        }
        Ok(all.outcome(plan.window))
    })
}

/// Runs a future on a single-threaded runtime of its own.
pub(crate) fn on_this_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Sends each request once, in order, on one connection; every answer must be 200.
pub(crate) fn sweep(addr: SocketAddr, requests: &[Vec<u8>]) -> anyhow::Result<Outcome> {
    on_this_thread(async {
        let mut connection = Connection::open(addr).await?;
        let (mut tally, began) = (Tally::default(), clock::instant());
        for request in requests {
            let sent_at = clock::instant();
            let framing = connection.exchange(request).await?;
            framing.expect(200, request, &connection.buffer)?;
            tally.take(framing, Some(sent_at.elapsed()));
        }
        Ok(tally.outcome(began.elapsed()))
    })
}

#[derive(Debug, Clone, Copy)]
struct Span {
    from: Instant,
    until: Instant,
}

struct Tally {
    latencies: Histogram,
    sources: [Histogram; SOURCES.len()],
    sent: u64,
    bytes: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let sources = std::array::from_fn(|_| Histogram::new());
        Self { latencies: Histogram::new(), sources, sent: 0, bytes: 0 }
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.latencies.merge(&other.latencies);
        self.sources.iter_mut().zip(&other.sources).for_each(|(mine, theirs)| mine.merge(theirs));
        self.sent += other.sent;
        self.bytes += other.bytes;
    }

    /// Notes an answer; outside the window it has no latency.
    fn take(&mut self, framing: Framing, latency: Option<Duration>) {
        self.sent += 1;
        self.bytes += framing.total_len as u64;
        let Some(latency) = latency else { return };
        self.latencies.record(latency);
        if let Some(source) = framing.source.and_then(|at| self.sources.get_mut(at)) {
            source.record(latency);
        }
    }

    fn outcome(&self, window: Duration) -> Outcome {
        Outcome {
            per_second: self.latencies.count() as f64 / window.as_secs_f64(),
            p50_us: self.latencies.quantile_us(0.50),
            p95_us: self.latencies.quantile_us(0.95),
            p99_us: self.latencies.quantile_us(0.99),
            sent: self.sent,
            bytes_per_answer: self.bytes as f64 / self.sent.max(1) as f64,
            sources: std::array::from_fn(|at| {
                self.sources
                    .get(at)
                    .map(|s| Source { count: s.count(), p50_us: s.quantile_us(0.5) })
                    .unwrap_or_default()
            }),
        }
    }
}

async fn one_connection(addr: SocketAddr, fill: Fill, mut rng: Rng, span: Span) -> anyhow::Result<Tally> {
    let mut connection = Connection::open(addr).await?;
    let mut tally = Tally::default();
    let mut request = Vec::with_capacity(1024);
    loop {
        request.clear();
        let expected = fill(&mut rng, &mut request);
        let sent_at = clock::instant();
        if sent_at >= span.until {
            return Ok(tally);
        }
        let framing = connection.exchange(&request).await?;
        let done_at = clock::instant();
        framing.expect(expected, &request, &connection.buffer)?;
        let counted = sent_at >= span.from && done_at <= span.until;
        tally.take(framing, counted.then(|| done_at - sent_at));
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

#[derive(Debug, Clone, Copy)]
struct Framing {
    status: u16,
    head_len: usize,
    total_len: usize,
    chunked: bool,
    /// Index into [`SOURCES`].
    source: Option<usize>,
}

impl Framing {
    fn expect(self, status: u16, request: &[u8], answer: &[u8]) -> anyhow::Result<()> {
        if self.status == status {
            return Ok(());
        }
        let shown = answer.get(..self.total_len.min(2_000)).unwrap_or(answer);
        let (request, shown) = (String::from_utf8_lossy(request), String::from_utf8_lossy(shown));
        bail!("expected {status}, got {}\n{request}\n--\n{shown}", self.status)
    }
}

impl Connection {
    async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await.with_context(|| format!("connect {addr}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024], filled: 0 })
    }

    /// Sends `request` and reads exactly one answer into the start of the buffer.
    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Framing> {
        self.stream.write_all(request).await?;
        self.filled = 0;
        let mut head = None;
        loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                bail!("the server closed the connection after {} bytes", self.filled);
            }
            self.filled += read;
            let seen = &self.buffer[..self.filled];
            if head.is_none() {
                head = parse_head(seen)?;
            }
            if let Some(framing) = head.and_then(|head: Head| head.complete(seen)) {
                return Ok(framing);
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Head {
    status: u16,
    len: usize,
    body_len: Option<usize>,
    source: Option<usize>,
}

impl Head {
    fn complete(self, seen: &[u8]) -> Option<Framing> {
        let framing = |total_len, chunked| Framing {
            status: self.status,
            head_len: self.len,
            total_len,
            chunked,
            source: self.source,
        };
        match self.body_len {
            Some(body_len) if seen.len() >= self.len + body_len => Some(framing(self.len + body_len, false)),
            // One request is in flight, so the final chunk is the last thing to arrive.
            None if seen.ends_with(b"0\r\n\r\n") => Some(framing(seen.len(), true)),
            _ => None,
        }
    }
}

/// Reads status and framing once the head is complete; `body_len` is `None` for a chunked body.
fn parse_head(seen: &[u8]) -> anyhow::Result<Option<Head>> {
    let Some(end) = memchr::memmem::find(seen, b"\r\n\r\n") else { return Ok(None) };
    let head = &seen[..end];
    let status: u16 =
        head.get(9..12).and_then(|code| std::str::from_utf8(code).ok()).context("no status line")?.parse()?;
    let (mut body_len, mut source) = (Some(0), None);
    for line_end in memchr::memchr_iter(b'\n', head) {
        // Whoever sends more lines must not pay for it on this side; all but three are passed over by their first letter.
        let line = head.get(line_end + 1..).unwrap_or_default();
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'c') => {
                if let Some(value) = value_of(line, b"content-length:") {
                    body_len = Some(std::str::from_utf8(value)?.trim().parse()?);
                }
            }
            Some(b't') if value_of(line, b"transfer-encoding:").is_some() => body_len = None,
            Some(b'x') => {
                if let Some(value) = value_of(line, b"x-cache:") {
                    source = SOURCES.iter().position(|name| name.as_bytes() == value.trim_ascii());
                }
            }
            _ => {}
        }
    }
    if status == 304 || status == 204 {
        body_len = Some(0);
    }
    Ok(Some(Head { status, len: end + 4, body_len, source }))
}

/// The value of the header `name` if `rest` begins with it; it ends where the line does.
fn value_of<'head>(rest: &'head [u8], name: &[u8]) -> Option<&'head [u8]> {
    let (_, value) = rest.split_at_checked(name.len()).filter(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.get(..memchr::memchr(b'\r', value).unwrap_or(value.len())).unwrap_or_default())
}

fn unchunk(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(rest.len());
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end])?.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        let chunk = rest.get(end + 2..end + 2 + size).context("a chunk cut short")?;
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2 + size + 2..).context("no chunk after a chunk")?;
    }
}
