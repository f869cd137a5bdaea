//! Merging message files (H41): eight of a tier become one of the next, for one replica. Order of files is order of seqs, so a
//! merge never compares messages: it puts the parts of a channel one after the other.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use wk_proto::ChannelKey;

use crate::base::{Base, ReplicaBase};
use crate::messages::{FileWriter, SectionLayer};
use crate::rows::{FileRef, ReplicaRow};
use crate::{Error, Result};

/// Files of a tier that make one of the next.
const FAN_IN: usize = 8;
/// Bytes of blocks in a merged file: bounds one step, and the index kept in memory while it is written (about 40 bytes a
/// message). Files beyond half of it stay as they are.
const MERGED_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Neighbouring files worth merging; `None` if there are none.
pub(crate) fn choose(replica: &ReplicaBase) -> Option<Range<usize>> {
    let sizes: Vec<(u8, u64)> = replica
        .row
        .files
        .iter()
        .zip(&replica.sections)
        .map(|(file, section)| (file.tier, section.data_bytes()))
        .collect();
    choose_among(&sizes)
}

fn choose_among(files: &[(u8, u64)]) -> Option<Range<usize>> {
    let mut start = 0;
    for run in files.chunk_by(|a, b| a.0 == b.0) {
        if run.len() >= FAN_IN
            && let Some(inside) = fitting(run)
        {
            return Some(start + inside.start..start + inside.end);
        }
        start += run.len();
    }
    None
}

/// The oldest neighbours, at most [`FAN_IN`], that fit one file.
fn fitting(run: &[(u8, u64)]) -> Option<Range<usize>> {
    (0..run.len()).find_map(|first| {
        let mut bytes = 0;
        let fit = run[first..].iter().take(FAN_IN).take_while(|(_, size)| {
            bytes += size;
            bytes <= MERGED_BYTES_MAX
        });
        let count = fit.count();
        (count >= 2).then_some(first..first + count)
    })
}

/// Writes the messages of the chosen files as one section.
pub(crate) fn write(
    replica: &ReplicaBase,
    inputs: Range<usize>,
    writer: &mut FileWriter<'_>,
) -> Result<()> {
    writer.begin(replica.row.meta.replica);
    let mut cursors = replica.sections[inputs]
        .iter()
        .map(Cursor::new)
        .collect::<Result<Vec<_>>>()?;
    while let Some(key) = cursors.iter().filter_map(|c| c.key.as_ref()).min().cloned() {
        for cursor in &mut cursors {
            if cursor.key.as_ref() == Some(&key) {
                let copy = |seq, record| writer.add(&key, seq, &record);
                cursor
                    .section
                    .for_each(cursor.channel, &mut cursor.block, copy)?;
                cursor.advance()?;
            }
        }
    }
    writer.end()
}

/// Position in the channels of one input.
struct Cursor<'s> {
    section: &'s SectionLayer,
    channel: usize,
    key: Option<ChannelKey>,
    block: Option<(usize, Bytes)>,
}

impl<'s> Cursor<'s> {
    fn new(section: &'s SectionLayer) -> Result<Self> {
        let key = Some(section.channel_key(0)?);
        Ok(Self {
            section,
            channel: 0,
            key,
            block: None,
        })
    }

    fn advance(&mut self) -> Result<()> {
        self.channel += 1;
        self.key = (self.channel < self.section.channel_count())
            .then(|| self.section.channel_key(self.channel))
            .transpose()?;
        Ok(())
    }
}

/// The replica's entry with the merged file in place of its inputs. `base` may be newer than the choice: checkpoints add files
/// at the end meanwhile, nothing else changes the list.
pub(crate) fn replace(
    base: &Base,
    chosen: &Arc<ReplicaBase>,
    inputs: Range<usize>,
    merged: u64,
) -> Result<ReplicaRow> {
    let mut row = base.replica(chosen.row.meta.replica).row.clone();
    if row.files.get(inputs.clone()) != chosen.row.files.get(inputs.clone()) {
        return Err(Error::Invalid(
            "the list of files changed during a merge".into(),
        ));
    }
    let tier = row.files[inputs.start].tier.saturating_add(1);
    row.files.splice(inputs, [FileRef { id: merged, tier }]);
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_neighbours_of_a_tier_are_chosen_and_large_files_left_alone() {
        let small = (0, 1_000);
        assert_eq!(choose_among(&[small; 7]), None);
        assert_eq!(choose_among(&[small; 9]), Some(0..8));
        let mut files = vec![(1, 1_000); 3];
        files.extend([small; 8]);
        assert_eq!(choose_among(&files), Some(3..11));
        assert_eq!(choose_among(&[(1, MERGED_BYTES_MAX); 20]), None);
        assert_eq!(choose_among(&[(0, MERGED_BYTES_MAX / 3); 8]), Some(0..3));
    }
}
