//! Giving everything to a successor: listening sockets and the state directory's lock, over a Unix socket in that directory. The
//! sockets stay open throughout, so no connection is refused; requests go on as before until the successor serves.
//!
//! The two say, in this order: here are the sockets and the lock (predecessor); `take` (successor: the state is to be mine);
//! `yours` (predecessor: all is written, and I write no more); `serving` (successor). When one of them ends before that, the
//! predecessor goes on as if nothing had been.
//!
//! Who has handed over, or is told to end, listens for successors no more: one that has asked meanwhile is let go unanswered,
//! and asks the process that has the directory then.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{SocketAddr as UnixAddress, UnixDatagram},
    },
    path::Path,
    time::Duration,
};

use rustix::{
    cmsg_space,
    io::{FdFlags, fcntl_setfd},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};

/// The socket in the state directory.
const SOCKET: &str = "upgrade.sock";

/// How a predecessor begins; the names of what it hands over follow. Another version of this says another number.
const GREETING: &str = "tradewind-handover-1";

/// Most things that are handed over.
const FDS_MAX: usize = 8;

/// How long an answer of the other one may take: it may wait for a disk, or for the first probes.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// What goes with the listeners.
pub(super) const LOCK: &str = "lock";

/// Where successors ask.
pub(super) fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    let path = state_dir.join(SOCKET);
    // Whoever holds the directory's lock is alone: what is there was left behind.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(&path),
    }
}

/// The other side of a handover.
pub(super) struct Other(UnixStream);

impl Other {
    pub(super) fn new(stream: UnixStream) -> Other {
        Other(stream)
    }

    /// Hands over what has these names; it stays open here, too.
    pub(super) fn give(&self, named: &[(&str, BorrowedFd<'_>)]) -> io::Result<()> {
        let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        let fds: Vec<BorrowedFd<'_>> = named.iter().map(|(_, fd)| *fd).collect();
        let text = format!("{GREETING} {}\n", names.join(" "));
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("there is too much to hand over"));
        }
        let sent = sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::empty())?;
        if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    pub(super) async fn say(&mut self, word: &str) -> io::Result<()> {
        self.0.write_all(format!("{word}\n").as_bytes()).await
    }

    /// Waits until the other one says this.
    pub(super) async fn hear(&mut self, word: &str) -> io::Result<()> {
        let mut said = vec![0; word.len() + 1];
        timeout(ANSWER_WAIT, self.0.read_exact(&mut said))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if said == format!("{word}\n").as_bytes() {
            return Ok(());
        }
        Err(io::Error::other(format!("it said {:?}, expected {word:?}", String::from_utf8_lossy(&said))))
    }
}

/// A predecessor, and what it has handed over.
pub struct Predecessor {
    other: Other,
    given: HashMap<String, OwnedFd>,
}

impl Predecessor {
    /// Asks the process that has this state directory for what it listens on. While that one hands over to another successor,
    /// this one waits its turn, and asks whoever has the directory then.
    ///
    /// # Errors
    /// When there is none, or it says something else.
    pub async fn at(state_dir: &Path) -> io::Result<Predecessor> {
        let asking = async {
            loop {
                let stream = UnixStream::connect(state_dir.join(SOCKET)).await?;
                tracing::info!("the running process is asked for its sockets and its state");
                match receive(&stream).await {
                    Ok(given) => return Ok(Predecessor { other: Other(stream), given }),
                    Err(error) if has_left(&error) => {
                        tracing::info!(
                            "it has handed over to another one meanwhile, which is asked in its place"
                        );
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        timeout(ANSWER_WAIT, asking).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// What it listens on for `key`, if that is `address`.
    pub(super) fn listener(&mut self, key: &str, address: SocketAddr) -> Option<TcpListener> {
        let listener = TcpListener::from(self.given.remove(key)?);
        let local = listener.local_addr().ok()?;
        let same = local.ip() == address.ip() && (address.port() == 0 || local.port() == address.port());
        same.then_some(listener)
    }

    /// The lock of the state directory, once the predecessor writes there no more.
    pub(super) async fn state(&mut self) -> io::Result<File> {
        let lock = self.given.remove(LOCK).ok_or_else(|| io::Error::other("it has handed over no lock"))?;
        self.other.say("take").await?;
        self.other.hear("yours").await?;
        Ok(File::from(lock))
    }

    /// Lets it go.
    pub(super) async fn serving(mut self) -> io::Result<()> {
        self.other.say("serving").await
    }
}

/// Whether a process has closed the socket at which it was asked, before it said anything.
fn has_left(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

async fn receive(stream: &UnixStream) -> io::Result<HashMap<String, OwnedFd>> {
    let (mut text, mut fds) = ([0; 256], Vec::new());
    let len = loop {
        stream.readable().await?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::empty());
        match received.map_err(io::Error::from) {
            Ok(received) => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        fds.extend(rights);
                    }
                }
                break received.bytes;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Tells tokio that there is nothing yet.
                let _ = stream.try_io(tokio::io::Interest::READABLE, || Err::<(), _>(error));
            }
            Err(error) => return Err(error),
        }
    };
    if len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8_lossy(&text[..len]);
    let mut words = text.split_whitespace();
    if words.next() != Some(GREETING) {
        return Err(io::Error::other(format!("it said {text:?}: another version hands over in another way")));
    }
    let names: Vec<String> = words.map(str::to_owned).collect();
    if names.len() != fds.len() {
        return Err(io::Error::other(format!(
            "it named {} things and handed over {}",
            names.len(),
            fds.len()
        )));
    }
    for fd in &fds {
        // No child of this process shall have it.
        fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    Ok(names.into_iter().zip(fds).collect())
}

/// Tells systemd, if it started this, that this process is the service now.
pub fn tell_service_manager() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = || -> io::Result<usize> {
        let text = format!("READY=1\nMAINPID={}", std::process::id());
        UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &notify_address(&path)?)
    };
    if let Err(error) = told() {
        tracing::warn!(%error, "the service manager could not be told of this process");
    }
}

/// A path, or after `@` a name that is in no file system.
fn notify_address(path: &OsStr) -> io::Result<UnixAddress> {
    #[cfg(target_os = "linux")]
    if let Some(name) = path.as_encoded_bytes().strip_prefix(b"@") {
        return <UnixAddress as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    UnixAddress::from_pathname(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_service_manager_has_a_path_or_a_name() {
        let path = notify_address(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname(), Some(Path::new("/run/systemd/notify")));
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let named = notify_address(OsStr::new("@here")).unwrap();
            assert_eq!(named.as_abstract_name(), Some(&b"here"[..]));
        }
    }

    #[tokio::test]
    async fn sockets_arrive_and_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let bell = listen(dir.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let path = dir.path().to_owned();
        let successor = tokio::spawn(async move {
            let mut old = Predecessor::at(&path).await.unwrap();
            let taken = old.listener("listen.http", address).unwrap();
            assert!(old.listener("admin.listen", "127.0.0.2:1".parse().unwrap()).is_none());
            let _lock = old.state().await.unwrap();
            old.serving().await.unwrap();
            taken
        });
        let mut other = Other::new(bell.accept().await.unwrap().0);
        let lock = File::create(dir.path().join("lock")).unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let all = [("listen.http", listener.as_fd()), ("admin.listen", admin.as_fd()), (LOCK, lock.as_fd())];
        other.give(&all).unwrap();
        other.hear("take").await.unwrap();
        other.say("yours").await.unwrap();
        other.hear("serving").await.unwrap();
        let taken = successor.await.unwrap();
        drop(listener);
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(b"x").unwrap();
        taken.accept().unwrap();
        assert!(other.hear("more").await.is_err(), "it is gone");
    }
}
