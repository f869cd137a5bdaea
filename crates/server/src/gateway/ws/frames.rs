//! Frames of an open WebSocket: strict about what clients send (RFC 6455 5), minimal in what we send.

use bytes::{BufMut, BytesMut};

use super::Output;
use crate::limits::WS_MESSAGE_BYTES_MAX;

/// Why a connection ends, as its close frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Code {
    /// We are done.
    Normal,
    /// The server goes away, or wants the client to come back.
    GoingAway,
    /// The peer broke the rules of framing.
    Protocol,
    /// A text message was not UTF-8.
    NotText,
    /// A message was too long.
    TooBig,
    /// The peer closed, with this code if any.
    Echo(Option<u16>),
}

impl Code {
    fn number(self) -> Option<u16> {
        match self {
            Self::Normal => Some(1000),
            Self::GoingAway => Some(1001),
            Self::Protocol => Some(1002),
            Self::NotText => Some(1007),
            Self::TooBig => Some(1009),
            Self::Echo(code) => code,
        }
    }
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const CONTROL_BYTES_MAX: u64 = 125;
const HEADER_BYTES_MAX: usize = 14;

/// Appends the header of an unfragmented message of `len` bytes.
pub(in crate::gateway) fn data_header(text: bool, len: usize, out: &mut BytesMut) {
    out.put_u8(FIN | if text { TEXT } else { BINARY });
    match len {
        0..=125 => out.put_u8(len as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(len as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
}

/// Appends a close frame.
pub(in crate::gateway) fn close_frame(code: Code, out: &mut BytesMut) {
    out.put_u8(FIN | CLOSE);
    match code.number() {
        Some(number) => {
            out.put_u8(2);
            out.put_u16(number);
        }
        None => out.put_u8(0),
    }
}

/// Reads frames from a byte stream.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// The message being read: its text check, `None` for binary.
    message: Option<Message>,
    control: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    fin: bool,
    mask: [u8; 4],
    /// Bytes read and to be read.
    at: u64,
    left: u64,
}

#[derive(Debug)]
struct Message {
    len: u64,
    text: Option<Utf8>,
}

impl Decoder {
    /// Takes bytes of the stream. An error ends it: with this code.
    pub(super) fn read(&mut self, mut input: &[u8], out: &mut Output) -> Result<(), Code> {
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.read_header(&mut input)? {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
            };
            if !self.read_payload(frame, &mut input, out)? {
                return Ok(());
            }
        }
    }

    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Code> {
        loop {
            let wanted = header_len(&self.header[..self.header_len])?;
            let missing = wanted - self.header_len;
            if missing == 0 {
                break;
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.header[self.header_len..][..taken.len()].copy_from_slice(taken);
            self.header_len += taken.len();
            *input = rest;
            if taken.len() < missing {
                return Ok(None);
            }
        }
        let frame = parse_header(&self.header[..self.header_len])?;
        self.header_len = 0;
        self.begin(frame)?;
        self.frame = Some(frame);
        Ok(Some(frame))
    }

    /// Checks a frame against the message it would be a part of.
    fn begin(&mut self, frame: Frame) -> Result<(), Code> {
        if frame.opcode >= CLOSE {
            self.control.clear();
            return Ok(());
        }
        match (frame.opcode, self.message.is_some()) {
            (CONTINUATION, true) => {}
            (TEXT | BINARY, false) => {
                let text = (frame.opcode == TEXT).then(Utf8::default);
                self.message = Some(Message { len: 0, text });
            }
            _ => return Err(Code::Protocol),
        }
        let message = self.message.as_mut().ok_or(Code::Protocol)?;
        message.len = message.len.saturating_add(frame.left);
        if message.len > WS_MESSAGE_BYTES_MAX as u64 {
            return Err(Code::TooBig);
        }
        Ok(())
    }

    /// Returns whether the frame is complete.
    fn read_payload(
        &mut self,
        mut frame: Frame,
        input: &mut &[u8],
        out: &mut Output,
    ) -> Result<bool, Code> {
        let take = usize::try_from(frame.left).map_or(input.len(), |left| left.min(input.len()));
        let (taken, rest) = input.split_at(take);
        *input = rest;
        let unmasked = taken
            .iter()
            .zip(0u64..)
            .map(|(byte, n)| byte ^ frame.mask[((frame.at + n) % 4) as usize]);
        if frame.opcode >= CLOSE {
            self.control.extend(unmasked);
        } else {
            let start = out.data.len();
            out.data.extend(unmasked);
            let message = self.message.as_mut().ok_or(Code::Protocol)?;
            if let Some(text) = &mut message.text {
                text.check(&out.data[start..])?;
            }
        }
        frame.at += take as u64;
        frame.left -= take as u64;
        if frame.left > 0 {
            self.frame = Some(frame);
            return Ok(false);
        }
        self.frame = None;
        self.complete(frame, out)?;
        Ok(true)
    }

    fn complete(&mut self, frame: Frame, out: &mut Output) -> Result<(), Code> {
        match frame.opcode {
            PING => {
                out.alive = true;
                out.reply.put_u8(FIN | PONG);
                out.reply.put_u8(self.control.len() as u8);
                out.reply.put_slice(&self.control);
            }
            PONG => out.alive = true,
            CLOSE => return Err(self.peer_closed()),
            _ if frame.fin => {
                let message = self.message.take();
                if message.is_some_and(|m| m.text.is_some_and(|text| !text.is_whole())) {
                    return Err(Code::NotText);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn peer_closed(&self) -> Code {
        let Some((code, reason)) = self.control.split_first_chunk::<2>() else {
            return match self.control.len() {
                0 => Code::Echo(None),
                _ => Code::Protocol,
            };
        };
        let code = u16::from_be_bytes(*code);
        let is_valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        if !is_valid {
            Code::Protocol
        } else if std::str::from_utf8(reason).is_err() {
            Code::NotText
        } else {
            Code::Echo(Some(code))
        }
    }
}

/// Bytes of the header that starts so, as far as it can be told; checks what is there.
fn header_len(seen: &[u8]) -> Result<usize, Code> {
    let [first, second, ..] = seen else {
        return Ok(2);
    };
    if first & RESERVED != 0 || second & MASKED == 0 {
        return Err(Code::Protocol);
    }
    let extended = match second & !MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    Ok(2 + extended + 4)
}

fn parse_header(header: &[u8]) -> Result<Frame, Code> {
    let (opcode, fin) = (header[0] & 0x0f, header[0] & FIN != 0);
    let (body, mask) = header.split_last_chunk::<4>().ok_or(Code::Protocol)?;
    let left = match &body[2..] {
        [] => u64::from(body[1] & !MASKED),
        extended => extended.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
    };
    match opcode {
        CONTINUATION | TEXT | BINARY => {}
        CLOSE | PING | PONG if fin && left <= CONTROL_BYTES_MAX => {}
        _ => return Err(Code::Protocol),
    }
    Ok(Frame {
        opcode,
        fin,
        mask: *mask,
        at: 0,
        left,
    })
}

/// Checks text that comes in pieces.
#[derive(Debug, Default)]
struct Utf8 {
    /// The beginning of a character whose end has not come.
    cut: [u8; 4],
    cut_len: usize,
}

impl Utf8 {
    fn check(&mut self, mut piece: &[u8]) -> Result<(), Code> {
        while self.cut_len > 0 {
            let Some((next, rest)) = piece.split_first() else {
                return Ok(());
            };
            self.cut[self.cut_len] = *next;
            self.cut_len += 1;
            piece = rest;
            match std::str::from_utf8(&self.cut[..self.cut_len]) {
                Ok(_) => self.cut_len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Code::NotText),
            }
        }
        let Err(error) = std::str::from_utf8(piece) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(Code::NotText);
        }
        let tail = &piece[error.valid_up_to()..];
        self.cut[..tail.len()].copy_from_slice(tail);
        self.cut_len = tail.len();
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.cut_len == 0
    }
}

#[cfg(test)]
mod tests;
