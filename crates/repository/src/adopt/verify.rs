//! Looks whether all is as it must be, with servers writing on.

use sqlx::PgConnection;

use super::AdoptError;

/// Rooms a statement: each sees its rooms and their messages at one moment.
const ROOMS: i64 = 200;

/// Rooms that a sentence names.
const NAMED: usize = 5;

/// What was looked at.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Verified {
    pub rooms: i64,
    pub messages: i64,
    pub memberships: i64,
}

/// A room whose messages are not 1..N.
#[derive(Debug)]
pub(super) struct Gap {
    pub room: i32,
    messages: i64,
    numbered: i64,
    highest: i64,
    last_seq: Option<i64>,
}

/// Every room's messages are 1..N, `last_seq` is N, every watermark lies between:
/// else an error, but for rooms with gaps, which are the second answer.
pub(super) async fn run(db: &mut PgConnection) -> Result<(Verified, Vec<Gap>), AdoptError> {
    let mut verified = Verified::default();
    let mut gaps: Vec<Gap> = Vec::new();
    let mut after = i32::MIN;
    loop {
        let rooms = sqlx::query!(
            r#"SELECT
                 r.id,
                 r.last_seq AS "last_seq?",
                 h.messages AS "messages!",
                 h.lowest AS "lowest?",
                 h.highest AS "highest?",
                 h.numbered AS "numbered!"
               FROM (SELECT * FROM rooms WHERE id > $1 ORDER BY id LIMIT $2) AS r
               CROSS JOIN LATERAL (
                 SELECT
                   count(*) AS messages, count(m.seq) AS numbered,
                   min(m.seq) AS lowest, max(m.seq) AS highest
                 FROM messages m
                 WHERE m.room_id = r.id
               ) AS h
               ORDER BY r.id"#,
            after,
            ROOMS,
        )
        .fetch_all(&mut *db)
        .await?;
        let Some(last) = rooms.last() else { break };
        after = last.id;
        for room in rooms {
            verified.rooms += 1;
            verified.messages += room.messages;
            // seq is unique in a room: so these make it 1..N.
            let whole = room.numbered == room.messages
                && room.last_seq == Some(room.messages)
                && room.highest.unwrap_or(0) == room.messages
                && (room.messages == 0 || room.lowest == Some(1));
            if !whole {
                gaps.push(Gap {
                    room: room.id,
                    messages: room.messages,
                    numbered: room.numbered,
                    highest: room.highest.unwrap_or(0),
                    last_seq: room.last_seq,
                });
            }
        }
    }
    let stays = sqlx::query!(
        r#"SELECT
             count(*) AS "all!",
             count(*) FILTER (
               WHERE rm.joined_seq >= 0
                 AND rm.joined_seq <= r.last_seq
                 AND rm.last_read_seq BETWEEN rm.joined_seq AND r.last_seq
                 AND rm.last_delivered_seq BETWEEN rm.joined_seq AND r.last_seq
             ) AS "right!"
           FROM room_members rm
           JOIN rooms r ON r.id = rm.room_id"#,
    )
    .fetch_one(&mut *db)
    .await?;
    verified.memberships = stays.all;
    if stays.right != stays.all {
        return Err(AdoptError::Refused(format!(
            "{} memberships have watermarks outside of their room's messages",
            stays.all - stays.right
        )));
    }
    Ok((verified, gaps))
}

/// What is wrong, and the only thing that makes it so.
pub(super) fn sentence(gaps: &[Gap]) -> String {
    let mut wrong: Vec<String> = gaps
        .iter()
        .take(NAMED)
        .map(|gap| {
            format!(
                "room {} has {} messages, {} of them numbered, up to {}, and last_seq {}",
                gap.room,
                gap.messages,
                gap.numbered,
                gap.highest,
                gap.last_seq.map_or("not set".to_owned(), |seq| seq.to_string()),
            )
        })
        .collect();
    if gaps.len() > NAMED {
        wrong.push(format!("and {} more", gaps.len() - NAMED));
    }
    format!("{}: a server DELETEs rows of messages", wrong.join("; "))
}
