//! The fields that frames are made of, written and read. Every read is bounded by
//! what there is, and total: it gives a value or fails, and never panics.

use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::malformed;
use crate::error::Error;

/// Appends fields, little-endian, lengths before bytes.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn duration(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }
    pub(super) fn lifetime(&mut self, value: Option<Duration>) {
        self.u8(u8::from(value.is_some()));
        self.duration(value.unwrap_or_default());
    }
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.0.extend_from_slice(value);
    }
    pub(crate) fn list(&mut self, values: &[Vec<u8>]) {
        self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        for value in values {
            self.bytes(value);
        }
    }
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes fields off the front; fails on the first that is not there.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, tail) = self.0.split_first_chunk().ok_or_else(malformed)?;
        self.0 = tail;
        Ok(*head)
    }
    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.take::<1>()?[0])
    }
    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    pub(crate) fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_le_bytes(self.take()?))
    }
    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.take()?))
    }
    pub(crate) fn duration(&mut self) -> Result<Duration, Error> {
        Ok(Duration::from_nanos(self.u64()?))
    }
    pub(super) fn lifetime(&mut self) -> Result<Option<Duration>, Error> {
        let (given, value) = (self.flag()?, self.duration()?);
        if !given && !value.is_zero() {
            return Err(malformed());
        }
        Ok(given.then_some(value))
    }
    /// A truth value, written in one way only.
    pub(super) fn flag(&mut self) -> Result<bool, Error> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed()),
        }
    }
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let length = usize::try_from(self.u64()?).map_err(|_| malformed())?;
        let (head, tail) = self.0.split_at_checked(length).ok_or_else(malformed)?;
        self.0 = tail;
        Ok(head)
    }
    pub(crate) fn text(&mut self) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }
    pub(crate) fn path(&mut self) -> Result<PathBuf, Error> {
        Ok(PathBuf::from(std::ffi::OsString::from_vec(
            self.bytes()?.to_vec(),
        )))
    }
    pub(crate) fn list(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        let count = self.u32()?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.bytes()?.to_vec());
        }
        Ok(values)
    }
    pub(crate) fn end(&self) -> Result<(), Error> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(malformed())
        }
    }
}

/// Which descriptors come along with a command, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Along {
    /// Its standard input.
    pub(crate) stdin: bool,
    /// Its channel.
    pub(crate) channel: bool,
    /// Where a program that a zygote forks into the box will say that it is there.
    pub(crate) arrival: bool,
}

impl Along {
    pub(super) fn encode(self, out: &mut Writer) {
        for flag in [self.stdin, self.channel, self.arrival] {
            out.u8(u8::from(flag));
        }
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            stdin: input.flag()?,
            channel: input.flag()?,
            arrival: input.flag()?,
        })
    }
}
