//! A server in a child process: started, waited for, measured through `/proc`, killed when dropped.
//!
//! Keeps true: no child outlives its handle. Does not do: other systems than Linux for the measurements (zeros there).

use super::load;
use anyhow::{Context, bail};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tenantry::kernel::clock;

/// Ticks per second of `/proc/<pid>/stat`; fixed at 100 in the Linux ABI.
const TICKS_PER_SECOND: u64 = 100;

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// From spawn to the first answer of the health route.
    pub(crate) started_in: Duration,
}

impl Server {
    /// Runs `command` and waits until `GET health` answers 200.
    pub(crate) fn start(mut command: Command, addr: SocketAddr, health: &str) -> anyhow::Result<Self> {
        let began = clock::instant();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("start the server")?;
        let mut server = Self { child, addr, started_in: Duration::ZERO };
        let request = load::render("GET", health, &[], None);
        loop {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended at once: {status}");
            }
            if let Ok(answer) = load::fetch(addr, &request)
                && answer.status == 200
            {
                server.started_in = began.elapsed();
                return Ok(server);
            }
            if began.elapsed() > Duration::from_secs(180) {
                bail!("the server did not answer {health} within three minutes");
            }
            pause(Duration::from_millis(2));
        }
    }

    /// Starts this bench's own executable as the yardstick.
    pub(crate) fn start_bare(dir: &Path, cached: bool) -> anyhow::Result<Self> {
        let addr = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare").arg(dir).env("BARE_LISTEN", addr.to_string());
        if cached {
            command.arg("--cached");
        }
        Self::start(command, addr, "/health")
    }

    /// Processor time used so far, all threads, microseconds.
    pub(crate) fn cpu_us(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The command name may hold spaces; fields are counted from behind its closing parenthesis.
        let ticks: u64 = text
            .rsplit_once(')')
            .map(|(_, rest)| {
                rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
            })
            .unwrap_or(0);
        ticks * 1_000_000 / TICKS_PER_SECOND
    }

    /// Resident memory, KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        resident_kib(self.child.id())
    }

    /// Kills it, as a power cut would, as far as the process goes.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop and waits up to ten seconds.
    pub(crate) fn stop(&mut self) -> anyhow::Result<Duration> {
        let began = clock::instant();
        let id = i32::try_from(self.child.id())?;
        let id = rustix::process::Pid::from_raw(id).context("a child has an id")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        while began.elapsed() < Duration::from_secs(10) {
            if self.child.try_wait()?.is_some() {
                return Ok(began.elapsed());
            }
            pause(Duration::from_millis(2));
        }
        bail!("the server did not stop within ten seconds")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process, KiB; 0 where `/proc` is missing.
pub(crate) fn resident_kib(process: u32) -> u64 {
    std::fs::read_to_string(format!("/proc/{process}/status"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}

/// A loopback address that was free a moment ago.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Waits; measurements only ever wait for other processes.
#[expect(clippy::disallowed_methods, reason = "a bench waits for a child process, there is no condition to wait on")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}
