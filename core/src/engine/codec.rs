//! Bytes of the journal: varints, so that the record of a finished proof takes some 20 bytes.

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBytes {
    /// The bytes end too early.
    #[error("cut off")]
    CutOff,
    /// A value that has no meaning; says which.
    #[error("{0} has no meaning")]
    Meaningless(&'static str),
    /// Written by a version this code does not know.
    #[error("version {0} is not known")]
    Version(u8),
    /// More bytes than the value takes.
    #[error("{0} bytes too many")]
    TooLong(usize),
}

/// Appends values to a buffer.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    pub(crate) fn option(&mut self, value: Option<u64>) {
        self.byte(u8::from(value.is_some()));
        value.into_iter().for_each(|v| self.varint(v));
    }

    /// To the last bit, so that a report read back is the same.
    pub(crate) fn float(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }
}

/// Takes values off the front of a slice.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, BadBytes> {
        let (first, rest) = self.0.split_first().ok_or(BadBytes::CutOff)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, BadBytes> {
        Ok(self.byte()? != 0)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, BadBytes> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(BadBytes::Meaningless("varint"))
    }

    /// A varint that has to fit the type asked for.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self) -> Result<T, BadBytes> {
        T::try_from(self.varint()?).map_err(|_| BadBytes::Meaningless("number"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, BadBytes> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn option<T: TryFrom<u64>>(&mut self) -> Result<Option<T>, BadBytes> {
        if self.flag()? { self.number().map(Some) } else { Ok(None) }
    }

    pub(crate) fn float(&mut self) -> Result<f64, BadBytes> {
        self.array().map(|bits| f64::from_bits(u64::from_le_bytes(bits)))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], BadBytes> {
        let length: usize = self.number()?;
        let (head, rest) = self.0.split_at_checked(length).ok_or(BadBytes::CutOff)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn text(&mut self) -> Result<String, BadBytes> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| BadBytes::Meaningless("text"))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], BadBytes> {
        let (head, rest) = self.0.split_first_chunk().ok_or(BadBytes::CutOff)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn end(&self) -> Result<(), BadBytes> {
        if self.0.is_empty() { Ok(()) } else { Err(BadBytes::TooLong(self.0.len())) }
    }
}
