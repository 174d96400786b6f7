//! A loopback port in a program's otherwise empty network, connected only to the process that wants
//! the program.

use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Always free: the network is new.
pub(crate) const PORT: u16 = 8_000;

/// Listens in this new network. The socket stays in it, whichever process accepts its connections.
pub(super) fn listen() -> Result<TcpListener> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all fields are numbers or bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads a request of this shape.
    if unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    } != 0
    {
        return Err(Error::last_os_error());
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
}

pub(super) fn send(control: &UnixStream, listener: &TcpListener) -> Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut room);
    let descriptors = [listener.as_fd()];
    rights.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        control,
        &[IoSlice::new(&[0])],
        &mut rights,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

pub(super) fn receive(control: &UnixStream) -> Result<TcpListener> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut room);
    recvmsg(
        control,
        &mut [IoSliceMut::new(&mut [0])],
        &mut rights,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor: Option<OwnedFd> = descriptors
        .next()
        .and_then(|mut descriptors| descriptors.next());
    descriptor
        .map(TcpListener::from)
        .ok_or_else(|| ErrorKind::InvalidData.into())
}
