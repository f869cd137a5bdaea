//! Replicated positions of the consumers of the message log (H13, H14): everything up to the id is done.

use bytes::Bytes;
use wk_proto::MessageId;
use wk_store::{Result, Tx};

use crate::command::Consumer;
use crate::rows::{self, Rows};
use crate::tables;

/// Moves positions forward; an older one that rode along late changes nothing.
pub(crate) fn advance(tx: &mut Tx<'_>, cursors: &[(Consumer, MessageId)]) -> Result<()> {
    for &(consumer, id) in cursors {
        if id > read(tx, consumer)? {
            let value = Bytes::copy_from_slice(&id.0.to_be_bytes());
            tx.put(tables::CURSORS, &[consumer as u8], value);
        }
    }
    Ok(())
}

/// Position of a consumer; 0 if it never had one.
pub(crate) fn read(rows: &impl Rows, consumer: Consumer) -> Result<MessageId> {
    let Some(value) = rows.row(tables::CURSORS, &[consumer as u8])? else {
        return Ok(MessageId(0));
    };
    let bytes = value[..]
        .try_into()
        .map_err(|_| rows::corrupt(tables::CURSORS, "a position is 8 bytes"))?;
    Ok(MessageId(i64::from_be_bytes(bytes)))
}
