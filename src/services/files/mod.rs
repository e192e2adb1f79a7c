//! Uploaded files as records know them: their names, their media types, what their fields allow.
//!
//! Keeps true: a stored name is made here from what the client called the file, is safe in a path and in a header, and is
//! never used twice; a media type is told by the content and only refined by the name.
//! Does not do: keeping bytes (that is `store`), who may upload or see a file (that is `records`).

mod media;
mod naming;

pub use media::{is_inline, media_type};

use crate::kernel::digest;
use crate::kernel::error::Detail;
use crate::kernel::ident::FileName;
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::schema::Collection;
use crate::schema::field::{Field, FieldKind, FileOptions};
use crate::schema::value_check;
use crate::store::StagedFile;
use std::borrow::Cow;
use std::sync::Arc;

/// A file that came with a request and waits to be named by a record.
#[derive(Debug, Clone)]
pub struct Upload {
    member: Arc<str>,
    name: FileName,
    media: Cow<'static, str>,
    print: Arc<str>,
    staged: Arc<StagedFile>,
}

impl Upload {
    /// `member` is what the body calls the field, modifier included; `original` what the client calls the file.
    pub fn new(member: &str, original: &str, staged: StagedFile, random: &dyn Random) -> Self {
        let media = media_type(&staged.head, original);
        let name = naming::stored_name(original, &media, random);
        let print = Arc::from(format!("{original} {}", digest::hex(&staged.sha256)));
        Self { member: Arc::from(member), name, media, print, staged: Arc::new(staged) }
    }

    /// The same file under another member of a body.
    #[must_use]
    pub fn for_member(mut self, member: &str) -> Self {
        self.member = Arc::from(member);
        self
    }

    /// What the body calls the field, such as `documents+`.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// The name under which it will be stored.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// Name and content as the client sent them: the same for every repetition of a request.
    pub fn print(&self) -> &str {
        &self.print
    }

    /// The bytes.
    pub fn staged(&self) -> &Arc<StagedFile> {
        &self.staged
    }

    /// The name of the field it is meant for.
    pub fn field_name(&self) -> &str {
        value_check::split_modifier(&self.member).0
    }

    /// Checks size and media type against the options of its field.
    pub fn check(&self, field: &Field, options: &FileOptions) -> Result<(), Detail> {
        check_size(field, options, self.staged.bytes)?;
        let allowed = &options.mime_types;
        if !allowed.is_empty() && !allowed.iter().any(|one| one.eq_ignore_ascii_case(&self.media)) {
            let message = format!("The file is {}; allowed are {}.", self.media, allowed.join(", "));
            return Err(Detail::new(field.name.as_str(), "validation_invalid_mime_type", message));
        }
        Ok(())
    }
}

/// Refuses more bytes than the field allows.
pub fn check_size(field: &Field, options: &FileOptions, bytes: u64) -> Result<(), Detail> {
    let max = bytes_max(options);
    if bytes <= max {
        return Ok(());
    }
    let message = format!("The maximum allowed file size is {max} bytes.");
    Err(Detail::new(field.name.as_str(), "validation_file_size_limit", message))
}

/// The largest file that the field takes.
pub fn bytes_max(options: &FileOptions) -> u64 {
    if options.max_size == 0 { limits::FILE_BYTES_DEFAULT } else { options.max_size }
}

/// The file field that body member `member` is about.
pub fn find_field<'collection>(
    collection: &'collection Collection,
    member: &str,
) -> Option<(&'collection Field, &'collection FileOptions)> {
    let field = collection.find_field(value_check::split_modifier(member).0)?;
    match &field.kind {
        FieldKind::File(options) => Some((field, options)),
        _ => None,
    }
}

/// The file field of a record that holds `name`.
pub fn find_holder<'collection>(
    collection: &'collection Collection,
    record: &crate::schema::record::RecordImage,
    name: &str,
) -> Option<(&'collection Field, &'collection FileOptions)> {
    collection.fields.iter().find_map(|field| {
        let FieldKind::File(options) = &field.kind else { return None };
        let held = record.get(field.number).map(value_check::items).unwrap_or_default();
        held.iter().any(|item| item == name).then_some((field, options))
    })
}
