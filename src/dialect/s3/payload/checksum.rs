//! The checksums that clients send and ask for: CRC-32, CRC-32C, CRC-64/NVME, SHA-1 and SHA-256.
//!
//! A checksum is kept beside the blob in the field `~checksum-<name>` as it is sent, with its type in
//! `~checksum-type`: `FULL_OBJECT` is of the bytes, `COMPOSITE` is of the checksums of the parts and ends in `-N`.
//! Invariant: what is kept was computed here from what was stored. Pure; runs on the connection's shard.

use super::super::fault::{Code, Fault};
use crate::net::http::RequestHead;
use crate::service::blob::Properties;
use crate::service::blob::digest::Algorithm as Digest;
use crc_fast::CrcAlgorithm;
use data_encoding::BASE64;
use sha2::Digest as _;

/// A checksum that S3 knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// CRC-32
    Crc32,
    /// CRC-32C
    Crc32c,
    /// CRC-64/NVME
    Crc64Nvme,
    /// SHA-1
    Sha1,
    /// SHA-256
    Sha256,
}

/// What a checksum is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The bytes.
    FullObject,
    /// The checksums of the parts.
    Composite,
}

/// A checksum with its value as it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checksum {
    /// Which.
    pub algorithm: Algorithm,
    /// Of what.
    pub kind: Kind,
    /// Base64, and `-N` behind a composite one.
    pub value: Box<str>,
}

/// A digest that a request says its body has.
pub type Claim = (Algorithm, Box<[u8]>);

/// The field that says what a kept checksum is of.
const KIND_FIELD: &str = "~checksum-type";

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 5] =
        [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

    /// As `x-amz-checksum-algorithm` writes it.
    pub const fn text(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// The field that carries it.
    pub const fn field(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32c => "x-amz-checksum-crc32c",
            Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha1 => "x-amz-checksum-sha1",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The element of XML that carries it.
    pub const fn element(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "ChecksumCRC32",
            Algorithm::Crc32c => "ChecksumCRC32C",
            Algorithm::Crc64Nvme => "ChecksumCRC64NVME",
            Algorithm::Sha1 => "ChecksumSHA1",
            Algorithm::Sha256 => "ChecksumSHA256",
        }
    }

    /// The property that keeps it.
    const fn property(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "~checksum-crc32",
            Algorithm::Crc32c => "~checksum-crc32c",
            Algorithm::Crc64Nvme => "~checksum-crc64nvme",
            Algorithm::Sha1 => "~checksum-sha1",
            Algorithm::Sha256 => "~checksum-sha256",
        }
    }

    /// What computes it.
    pub const fn digest(self) -> Digest {
        match self {
            Algorithm::Crc32 => Digest::Crc32,
            Algorithm::Crc32c => Digest::Crc32c,
            Algorithm::Crc64Nvme => Digest::Crc64Nvme,
            Algorithm::Sha1 => Digest::Sha1,
            Algorithm::Sha256 => Digest::Sha256,
        }
    }

    const fn len(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => 4,
            Algorithm::Crc64Nvme => 8,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
        }
    }

    /// The one that a text names, in any case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.text().as_bytes().eq_ignore_ascii_case(text))
    }

    /// The one that a field carries.
    pub fn of_field(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.field().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The digest in a value as it is sent.
    pub fn decode(self, value: &[u8]) -> Result<Box<[u8]>, Fault> {
        let digest = BASE64.decode(value).ok().filter(|digest| digest.len() == self.len());
        digest.map(Vec::into_boxed_slice).ok_or_else(|| {
            Fault::new(Code::InvalidRequest, format!("Value for {} header is invalid.", self.field()))
        })
    }

    /// Whether the checksum of a whole can be had from those of its parts.
    const fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }

    /// The kind that an upload in parts has unless it says otherwise.
    pub const fn usual_kind(self) -> Kind {
        match self {
            Algorithm::Crc64Nvme => Kind::FullObject,
            _ => Kind::Composite,
        }
    }

    /// Whether uploads in parts can have this kind.
    pub const fn allows(self, kind: Kind) -> bool {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => true,
            Algorithm::Crc64Nvme => matches!(kind, Kind::FullObject),
            Algorithm::Sha1 | Algorithm::Sha256 => matches!(kind, Kind::Composite),
        }
    }
}

impl Kind {
    /// As `x-amz-checksum-type` writes it.
    pub const fn text(self) -> &'static str {
        match self {
            Kind::FullObject => "FULL_OBJECT",
            Kind::Composite => "COMPOSITE",
        }
    }

    /// The one that a text names.
    pub fn parse(text: &[u8]) -> Option<Self> {
        [Kind::FullObject, Kind::Composite].into_iter().find(|kind| kind.text().as_bytes() == text)
    }
}

impl Checksum {
    /// The checksum of whole bytes.
    pub fn of_bytes(algorithm: Algorithm, digest: &[u8]) -> Self {
        Checksum { algorithm, kind: Kind::FullObject, value: BASE64.encode(digest).into() }
    }

    /// What is kept beside a blob.
    pub fn of(properties: &Properties) -> Option<Self> {
        let kind = properties.field(KIND_FIELD).and_then(Kind::parse).unwrap_or(Kind::FullObject);
        Algorithm::ALL.into_iter().find_map(|algorithm| {
            let value = std::str::from_utf8(properties.field(algorithm.property())?).ok()?;
            Some(Checksum { algorithm, kind, value: value.into() })
        })
    }

    /// Keeps it.
    pub fn keep(&self, properties: &mut Properties) {
        properties.fields.push((self.algorithm.property().into(), self.value.as_bytes().into()));
        properties.fields.push((KIND_FIELD.into(), self.kind.text().as_bytes().into()));
    }

    /// The digest itself; for a composite one, that of the digests.
    pub fn digest(&self) -> Option<Box<[u8]>> {
        let text = self.value.split_once('-').map_or(&*self.value, |(text, _)| text);
        self.algorithm.decode(text.as_bytes()).ok()
    }

    /// The checksum of parts that stand behind each other, from the digest and the length of each.
    pub fn of_parts(algorithm: Algorithm, kind: Kind, parts: &[(Box<[u8]>, u64)]) -> Option<Self> {
        match kind {
            Kind::Composite => {
                let digests: Vec<u8> = parts.iter().flat_map(|(digest, _)| digest.iter().copied()).collect();
                let of_all = match algorithm.crc() {
                    Some(crc) => crc_bytes(algorithm, crc_fast::checksum(crc, &digests)),
                    None if algorithm == Algorithm::Sha1 => sha1::Sha1::digest(&digests).to_vec(),
                    None => sha2::Sha256::digest(&digests).to_vec(),
                };
                let value = format!("{}-{}", BASE64.encode(&of_all), parts.len());
                Some(Checksum { algorithm, kind, value: value.into() })
            }
            Kind::FullObject => {
                let crc = algorithm.crc()?;
                let whole = parts.iter().map(|(digest, len)| (crc_value(digest), *len)).reduce(
                    |(before, before_len), (behind, len)| {
                        (crc_fast::checksum_combine(crc, before, behind, len), before_len + len)
                    },
                );
                let (value, _) = whole?;
                Some(Self::of_bytes(algorithm, &crc_bytes(algorithm, value)))
            }
        }
    }
}

fn crc_value(digest: &[u8]) -> u64 {
    digest.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn crc_bytes(algorithm: Algorithm, value: u64) -> Vec<u8> {
    value.to_be_bytes()[8 - algorithm.len()..].to_vec()
}

/// The checksum that the fields of a request carry, if one does; two are a mistake.
pub fn claimed(head: &RequestHead) -> Result<Option<Claim>, Fault> {
    let mut found = None;
    for algorithm in Algorithm::ALL {
        if let Some(value) = head.header(algorithm.field()) {
            let digest = algorithm.decode(value)?;
            if found.replace((algorithm, digest)).is_some() {
                return Err(Fault::new(
                    Code::InvalidRequest,
                    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
                ));
            }
        }
    }
    Ok(found)
}

/// The checksum of a whole object that the fields of a request carry: perhaps a composite one, so as it is written.
pub fn claimed_of_object(head: &RequestHead) -> Result<Option<(Algorithm, Box<str>)>, Fault> {
    let fields = Algorithm::ALL.into_iter().filter_map(|known| Some((known, head.header(known.field())?)));
    let mut found = fields.map(|(algorithm, value)| {
        let text = std::str::from_utf8(value).unwrap_or_default();
        algorithm.decode(text.split_once('-').map_or(text, |(digest, _)| digest).as_bytes())?;
        Ok::<_, Fault>((algorithm, text.into()))
    });
    let first = found.next().transpose()?;
    match found.next() {
        None => Ok(first),
        Some(_) => Err(Fault::new(Code::InvalidRequest, "Expecting a single x-amz-checksum- header")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Box<[u8]> {
        match algorithm.crc() {
            Some(crc) => crc_bytes(algorithm, crc_fast::checksum(crc, bytes)).into(),
            None if algorithm == Algorithm::Sha1 => sha1::Sha1::digest(bytes)[..].into(),
            None => sha2::Sha256::digest(bytes)[..].into(),
        }
    }

    #[test]
    fn names_are_one_list() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.text().to_lowercase().as_bytes()), Some(algorithm));
            assert_eq!(Algorithm::of_field(algorithm.field().as_bytes()), Some(algorithm));
            let digest = digest_of(algorithm, b"123456789");
            assert_eq!(digest.len(), algorithm.len());
            let checksum = Checksum::of_bytes(algorithm, &digest);
            assert_eq!(algorithm.decode(checksum.value.as_bytes()), Ok(digest));
            let mut properties = Properties::default();
            checksum.keep(&mut properties);
            assert_eq!(Checksum::of(&properties), Some(checksum));
        }
        assert_eq!(
            &*Checksum::of_bytes(Algorithm::Crc32, &digest_of(Algorithm::Crc32, b"123456789")).value,
            "y/Q5Jg=="
        );
        assert!(Algorithm::Crc32.decode(b"y/Q5Jg").is_err() && Algorithm::Crc32.decode(b"AAAA").is_err());
    }

    #[test]
    fn a_composite_one_is_of_the_digests() {
        let parts = [b"a", b"b"].map(|part| (digest_of(Algorithm::Sha256, part), 1));
        let composite = Checksum::of_parts(Algorithm::Sha256, Kind::Composite, &parts).unwrap();
        let joined = [&parts[0].0[..], &parts[1].0].concat();
        let expected = format!("{}-2", BASE64.encode(&sha2::Sha256::digest(&joined)));
        assert_eq!(*composite.value, *expected);
        assert_eq!(composite.digest().unwrap()[..], sha2::Sha256::digest(&joined)[..]);
        assert_eq!(Checksum::of_parts(Algorithm::Sha256, Kind::FullObject, &parts), None);
    }

    proptest! {
        #[test]
        fn parts_give_what_the_whole_gives(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5),
        ) {
            for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
                let known: Vec<_> =
                    parts.iter().map(|part| (digest_of(algorithm, part), part.len() as u64)).collect();
                let whole = Checksum::of_bytes(algorithm, &digest_of(algorithm, &parts.concat()));
                prop_assert_eq!(Checksum::of_parts(algorithm, Kind::FullObject, &known), Some(whole));
            }
        }
    }
}
