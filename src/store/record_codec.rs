//! The bytes of one log record: `len u32 | crc32c u32 | CBOR`, little-endian, CBOR maps with integer keys.
//!
//! Keeps true: `decode(encode(frame)) == frame`; any damage is an error, never a panic or an unbounded allocation.
//! Does not do: SQLite; `changelog` stores and chains these bytes.
//!
//! ```text
//! TX  {0: format 1, 1: origin uid, 2: seq, 3: hlc, 4: prev_chain, 5: [[uid, seq, hlc]…], 6: epoch, 7: schema,
//!      8: actor, 9: request id, 10: ip or absent, 11: [op…]}
//! op  [0, coll, id, {field: value}]                    New: every value the record has (a missing field is its default)
//!     [1, coll, id, field, value, before]              Set
//!     [2, coll, id, field, delta, before]              Inc
//!     [3, coll, id, {field: value}]                    Del with the full before-image
//!     [4, coll, id, {field: value}]                    Undel with the full image
//!     [5, version, [ddl…], [[coll, before, after]…]]   Schema: definitions as text or null
//! ```

use super::changelog::{LogOp, SchemaChange};
use crate::kernel::clock::Hlc;
use crate::kernel::ident::{CollectionId, FieldNumber, OriginUid, RecordId};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::schema::record::RecordImage;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use std::convert::Infallible;
use std::sync::Arc;

const FORMAT: u8 = 1;
const HEADER_LEN: usize = 8;

/// Why bytes are not a log record.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Shorter than its header says.
    #[error("the frame is cut short")]
    Short,
    /// The checksum does not hold.
    #[error("the checksum does not match")]
    Checksum,
    /// A later format.
    #[error("format {0} is not known")]
    Format(u8),
    /// The content is not what the format says.
    #[error("malformed record: {0}")]
    Malformed(Arc<str>),
}

impl From<minicbor::decode::Error> for CodecError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed(Arc::from(error.to_string()))
    }
}

/// One entry of a version-vector delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginSeen {
    /// The lineage.
    pub uid: OriginUid,
    /// Largest sequence number seen of it.
    pub seq: i64,
    /// The hybrid logical time of that transaction.
    pub hlc: Hlc,
}

/// One transaction record without its local position.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The lineage that wrote it.
    pub origin: OriginUid,
    /// Its number there, rising by one.
    pub seq: i64,
    /// When, larger than every stamp before it.
    pub hlc: Hlc,
    /// Chain value before this record.
    pub prev_chain: [u8; 32],
    /// What the writer had seen of other lineages since its previous transaction.
    pub context: Vec<OriginSeen>,
    /// Reign of the writer (home mode).
    pub epoch: i64,
    /// Schema version after the transaction.
    pub schema: i64,
    /// Who, as text.
    pub actor: Arc<str>,
    /// By which request.
    pub request_id: Arc<str>,
    /// From where, if kept.
    pub ip: Option<Arc<str>>,
    /// What.
    pub ops: Vec<LogOp>,
}

type Out<'a> = Encoder<&'a mut Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<Infallible>>;
type Read<T> = Result<T, CodecError>;

/// Writes the record with its header. Returns the frame; the record alone starts at byte 8.
pub fn encode_frame(frame: &Frame) -> Vec<u8> {
    let mut record = Vec::with_capacity(256);
    write_frame(&mut Encoder::new(&mut record), frame).expect("invariant: writing into memory does not fail");
    let mut out = Vec::with_capacity(record.len() + HEADER_LEN);
    let len = u32::try_from(record.len()).expect("invariant: SQLite's length limit keeps records below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&record).to_le_bytes());
    out.extend_from_slice(&record);
    out
}

/// The record of a frame: what the chain hashes. Checks length and checksum.
pub(super) fn record_of(bytes: &[u8]) -> Read<&[u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or(CodecError::Short)?;
    let (crc, record) = rest.split_first_chunk::<4>().ok_or(CodecError::Short)?;
    if usize::try_from(u32::from_le_bytes(*len)) != Ok(record.len()) {
        return Err(CodecError::Short);
    }
    if crc32c::crc32c(record) != u32::from_le_bytes(*crc) {
        return Err(CodecError::Checksum);
    }
    Ok(record)
}

/// Reads a frame.
pub fn decode_frame(bytes: &[u8]) -> Read<Frame> {
    let record = record_of(bytes)?;
    let mut input = Decoder::new(record);
    let frame = read_frame(&mut input)?;
    if input.position() != record.len() {
        return Err(malformed("bytes after the record"));
    }
    Ok(frame)
}

/// The chain value after `record`: blake3(prev_chain ‖ record).
pub(super) fn chain_after(prev: &[u8; 32], record: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prev);
    hasher.update(record);
    *hasher.finalize().as_bytes()
}

fn malformed(what: &str) -> CodecError {
    CodecError::Malformed(Arc::from(what))
}

fn len64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn write_frame(out: &mut Out<'_>, frame: &Frame) -> Written {
    out.map(11 + u64::from(frame.ip.is_some()))?;
    out.u8(0)?.u8(FORMAT)?;
    out.u8(1)?.bytes(&frame.origin.0)?;
    out.u8(2)?.i64(frame.seq)?;
    out.u8(3)?.i64(frame.hlc.as_i64())?;
    out.u8(4)?.bytes(&frame.prev_chain)?;
    out.u8(5)?.array(len64(frame.context.len()))?;
    for seen in &frame.context {
        out.array(3)?.bytes(&seen.uid.0)?.i64(seen.seq)?.i64(seen.hlc.as_i64())?;
    }
    out.u8(6)?.i64(frame.epoch)?;
    out.u8(7)?.i64(frame.schema)?;
    out.u8(8)?.str(&frame.actor)?;
    out.u8(9)?.str(&frame.request_id)?;
    if let Some(ip) = &frame.ip {
        out.u8(10)?.str(ip)?;
    }
    out.u8(11)?.array(len64(frame.ops.len()))?;
    frame.ops.iter().try_for_each(|op| write_op(out, op))
}

fn write_op(out: &mut Out<'_>, op: &LogOp) -> Written {
    match op {
        LogOp::New { collection, record } => {
            out.array(4)?.u8(0)?.str(collection.as_str())?;
            write_image(out, record)
        }
        LogOp::Set { collection, id, field, value, before } => {
            out.array(6)?.u8(1)?.str(collection.as_str())?.str(id.as_str())?.u32(field.0)?;
            write_value(out, value)?;
            write_value(out, before)
        }
        LogOp::Inc { collection, id, field, delta, before } => {
            out.array(6)?.u8(2)?.str(collection.as_str())?.str(id.as_str())?.u32(field.0)?.f64(*delta)?;
            write_value(out, before)
        }
        LogOp::Del { collection, before } => {
            out.array(4)?.u8(3)?.str(collection.as_str())?;
            write_image(out, before)
        }
        LogOp::Undel { collection, record } => {
            out.array(4)?.u8(4)?.str(collection.as_str())?;
            write_image(out, record)
        }
        LogOp::Schema(change) => write_schema(out, change),
    }
}

fn write_schema(out: &mut Out<'_>, change: &SchemaChange) -> Written {
    out.array(4)?.u8(5)?.i64(change.version)?.array(len64(change.ddl.len()))?;
    for statement in &change.ddl {
        out.str(statement)?;
    }
    out.array(len64(change.changed.len()))?;
    for (id, before, after) in &change.changed {
        out.array(3)?.str(id.as_str())?;
        for definition in [before, after] {
            match definition {
                Some(text) => out.str(text)?,
                None => out.null()?,
            };
        }
    }
    Ok(())
}

fn write_image(out: &mut Out<'_>, image: &RecordImage) -> Written {
    out.str(image.id.as_str())?.map(len64(image.values().len()))?;
    for (field, value) in image.values() {
        out.u32(field.0)?;
        write_value(out, value)?;
    }
    Ok(())
}

fn write_value(out: &mut Out<'_>, value: &Stored) -> Written {
    match value {
        Stored::Null => out.null()?,
        Stored::Integer(value) => out.i64(*value)?,
        Stored::Real(value) => out.f64(*value)?,
        Stored::Text(text) => out.str(text)?,
        Stored::Blob(bytes) => out.bytes(bytes)?,
    };
    Ok(())
}

fn key(input: &mut Decoder<'_>, wanted: u8) -> Read<()> {
    if input.u8()? == wanted { Ok(()) } else { Err(malformed("unexpected key")) }
}

/// A length that the remaining input can hold: each element takes at least one byte.
fn length(input: &mut Decoder<'_>, map: bool) -> Read<usize> {
    let len = if map { input.map()? } else { input.array()? }.ok_or_else(|| malformed("indefinite length"))?;
    let left = input.input().len().saturating_sub(input.position());
    usize::try_from(len).ok().filter(|len| *len <= left).ok_or_else(|| malformed("length beyond the record"))
}

fn exactly(input: &mut Decoder<'_>, len: usize) -> Read<()> {
    if length(input, false)? == len { Ok(()) } else { Err(malformed("wrong number of elements")) }
}

fn fixed<const N: usize>(input: &mut Decoder<'_>) -> Read<[u8; N]> {
    input.bytes()?.try_into().map_err(|_| malformed("wrong number of bytes"))
}

fn read_frame(input: &mut Decoder<'_>) -> Read<Frame> {
    let keys = length(input, true)?;
    key(input, 0)?;
    let format = input.u8()?;
    if format != FORMAT {
        return Err(CodecError::Format(format));
    }
    key(input, 1)?;
    let origin = OriginUid(fixed(input)?);
    key(input, 2)?;
    let seq = input.i64()?;
    key(input, 3)?;
    let hlc = Hlc::from_i64(input.i64()?);
    key(input, 4)?;
    let prev_chain = fixed(input)?;
    key(input, 5)?;
    let context = read_context(input)?;
    key(input, 6)?;
    let epoch = input.i64()?;
    key(input, 7)?;
    let schema = input.i64()?;
    key(input, 8)?;
    let actor = Arc::from(input.str()?);
    key(input, 9)?;
    let request_id = Arc::from(input.str()?);
    let ip = match keys {
        11 => None,
        12 => {
            key(input, 10)?;
            Some(Arc::from(input.str()?))
        }
        _ => return Err(malformed("wrong number of keys")),
    };
    key(input, 11)?;
    let ops = read_ops(input)?;
    Ok(Frame { origin, seq, hlc, prev_chain, context, epoch, schema, actor, request_id, ip, ops })
}

fn read_context(input: &mut Decoder<'_>) -> Read<Vec<OriginSeen>> {
    (0..length(input, false)?)
        .map(|_| {
            exactly(input, 3)?;
            Ok(OriginSeen { uid: OriginUid(fixed(input)?), seq: input.i64()?, hlc: Hlc::from_i64(input.i64()?) })
        })
        .collect()
}

fn read_ops(input: &mut Decoder<'_>) -> Read<Vec<LogOp>> {
    let len = length(input, false)?;
    if len > limits::TX_OPS_MAX {
        return Err(malformed("too many operations"));
    }
    (0..len).map(|_| read_op(input)).collect()
}

fn read_op(input: &mut Decoder<'_>) -> Read<LogOp> {
    let len = length(input, false)?;
    match (input.u8()?, len) {
        (0, 4) => Ok(LogOp::New { collection: collection(input)?, record: read_image(input)? }),
        (1, 6) => Ok(LogOp::Set {
            collection: collection(input)?,
            id: record_id(input)?,
            field: FieldNumber(input.u32()?),
            value: read_value(input)?,
            before: read_value(input)?,
        }),
        (2, 6) => Ok(LogOp::Inc {
            collection: collection(input)?,
            id: record_id(input)?,
            field: FieldNumber(input.u32()?),
            delta: input.f64()?,
            before: read_value(input)?,
        }),
        (3, 4) => Ok(LogOp::Del { collection: collection(input)?, before: read_image(input)? }),
        (4, 4) => Ok(LogOp::Undel { collection: collection(input)?, record: read_image(input)? }),
        (5, 4) => Ok(LogOp::Schema(read_schema(input)?)),
        _ => Err(malformed("unknown operation")),
    }
}

fn read_schema(input: &mut Decoder<'_>) -> Read<SchemaChange> {
    let version = input.i64()?;
    let ddl = (0..length(input, false)?).map(|_| Ok(input.str()?.to_owned())).collect::<Read<Vec<_>>>()?;
    let changed = (0..length(input, false)?)
        .map(|_| {
            exactly(input, 3)?;
            Ok((collection(input)?, optional_text(input)?, optional_text(input)?))
        })
        .collect::<Read<Vec<_>>>()?;
    Ok(SchemaChange { version, ddl, changed })
}

fn optional_text(input: &mut Decoder<'_>) -> Read<Option<String>> {
    if input.datatype()? == Type::Null {
        input.null()?;
        return Ok(None);
    }
    Ok(Some(input.str()?.to_owned()))
}

fn collection(input: &mut Decoder<'_>) -> Read<CollectionId> {
    CollectionId::parse(input.str()?).map_err(|error| malformed(&error.to_string()))
}

fn record_id(input: &mut Decoder<'_>) -> Read<RecordId> {
    RecordId::parse(input.str()?).map_err(|error| malformed(&error.to_string()))
}

fn read_image(input: &mut Decoder<'_>) -> Read<RecordImage> {
    let id = record_id(input)?;
    let values = (0..length(input, true)?)
        .map(|_| Ok((FieldNumber(input.u32()?), read_value(input)?)))
        .collect::<Read<Vec<_>>>()?;
    Ok(RecordImage::new(id, values))
}

fn read_value(input: &mut Decoder<'_>) -> Read<Stored> {
    Ok(match input.datatype()? {
        Type::Null => {
            input.null()?;
            Stored::Null
        }
        Type::F64 => Stored::Real(input.f64()?),
        Type::String => Stored::text(input.str()?),
        Type::Bytes => Stored::Blob(Arc::from(input.bytes()?)),
        _ => Stored::Integer(input.i64()?),
    })
}
