//! Deliberate defects, each switching off one rule of coherence, so that the simulation can show it would notice.
//!
//! Keeps true: no switch is on unless [`crate::cache::CacheOptions::mutation`] names it, and no configuration can.
//! Does not do: anything in a running server.

/// One rule of coherence to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mutation {
    /// The stamp is read when the load has finished instead of before it began.
    StampAfterSnapshot,
    /// A schema or rule change does not move the schema's position.
    SchemaChangeIgnored,
    /// A write does not move the positions of the partitions it touches.
    PartitionsIgnored,
    /// A write does not move the positions of the records it touches.
    RecordsIgnored,
    /// A write does not move the position of the collection it touches.
    CollectionsIgnored,
    /// The end of the log that is read at a start is taken for all of it: records of which it says nothing never changed.
    TailTakenForWhole,
    /// What is committed while the file is being described is not kept in mind.
    LateCommitsForgotten,
    /// A file that is opened again is believed to be the one that was closed, whatever it says of itself.
    ClosedFileUnchecked,
    /// A file that is opened again is believed to be the one that was closed if it has come as far.
    ClosedFileMarkIgnored,
    /// A check that succeeds proves an answer right up to where the tenant stands afterwards.
    ProofAdvancedPastCheck,
    /// After a restart every position starts at zero instead of at what the file says.
    RestartForgetsPositions,
    /// An answer from disk is served without asking whether it is current.
    DiskUnchecked,
    /// Whether the file still holds the transaction up to which the disk tier has seen it is not asked: one that was
    /// restored or went back is not noticed.
    RollbackUnnoticed,
    /// Whoever waits for a load takes its result even if that load began before a write the waiter knows of.
    WaiterTakesOlderLoad,
    /// Purges are not compared.
    PurgeIgnored,
    /// A purge is not kept for the next process.
    PurgeNotKept,
    /// A purge that could not be counted after those that the disk keeps is taken for counted.
    PurgeOrderIgnored,
    /// An answer does not carry the names of the events by which it can be purged.
    EventsUnmarked,
    /// A purge between a write and the keeping of its writer's answer is not one of that answer.
    WriteThroughPurgesAtPresent,
    /// An answer in memory is served without asking whether it is current.
    MemoryUnchecked,
    /// Damage of an envelope on disk is not detected.
    ChecksumIgnored,
    /// An answer that a writer made is stamped with where the tenant stands now instead of with its own position.
    WriteThroughAtPresent,
    /// A commit's position is published before what it touched is raised.
    PositionPublishedFirst,
    /// An answer for the caller who loaded it alone is kept and handed to those who wait.
    ApartAnswersShared,
    /// A part of the tenant's past goes on serving whoever still holds it.
    RetiredPartServes,
    /// A request that began in one incarnation of the tenant's file may be answered from another.
    OlderIncarnationServes,
    /// An answer goes to disk before the mark of how far the disk has seen the file.
    HighMarkAfterAnswer,
    /// An answer that shows a commit of which the cache has not heard goes to disk under the mark of an earlier one.
    UnheardCommitPersisted,
    /// What the disk has of a tenant is left behind for a generation of the same number.
    GenerationReused,
    /// Whether an envelope on disk was filed under the key that is asked for is not looked at.
    EnvelopeKeyUnchecked,
    /// What another build of the program left on disk is taken for what this one would answer.
    OtherBuildBelieved,
}

impl Mutation {
    /// Every switch.
    pub const ALL: &'static [Mutation] = &[
        Self::StampAfterSnapshot,
        Self::SchemaChangeIgnored,
        Self::PartitionsIgnored,
        Self::RecordsIgnored,
        Self::CollectionsIgnored,
        Self::TailTakenForWhole,
        Self::LateCommitsForgotten,
        Self::ClosedFileUnchecked,
        Self::ClosedFileMarkIgnored,
        Self::ProofAdvancedPastCheck,
        Self::RestartForgetsPositions,
        Self::DiskUnchecked,
        Self::RollbackUnnoticed,
        Self::WaiterTakesOlderLoad,
        Self::PurgeIgnored,
        Self::PurgeNotKept,
        Self::PurgeOrderIgnored,
        Self::EventsUnmarked,
        Self::WriteThroughPurgesAtPresent,
        Self::MemoryUnchecked,
        Self::ChecksumIgnored,
        Self::WriteThroughAtPresent,
        Self::PositionPublishedFirst,
        Self::ApartAnswersShared,
        Self::RetiredPartServes,
        Self::OlderIncarnationServes,
        Self::HighMarkAfterAnswer,
        Self::UnheardCommitPersisted,
        Self::GenerationReused,
        Self::EnvelopeKeyUnchecked,
        Self::OtherBuildBelieved,
    ];
}
