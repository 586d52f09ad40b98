//! Looks at a database before anything is changed: what is there, what would be
//! added, how much there is to do, and what stands in the way.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::plan::{Diff, TABLES, diff, filling, numbered, quote};
use super::schema::{Constraint, ConstraintKind, Index, Schema, Table};
use super::{AdoptError, State, Survey};

/// Values of a column that Starling writes: a CHECK of before must allow them all.
const VALUES: [(&str, &str, &[&str]); 3] = [
    ("rooms", "room_type", &["direct", "group"]),
    ("room_members", "role", &["owner", "admin", "member"]),
    ("messages", "message_type", &["text", "image", "file", "system"]),
];

// What is asked here depends on which tables and columns there are: none of these
// statements has a fixed shape that `sqlx::query!` could check.

async fn number(db: &mut PgConnection, sql: String) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(db).await
}

async fn exists(db: &mut PgConnection, relation: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(quote(relation))
        .fetch_one(db)
        .await
}

/// What this database is.
pub(super) async fn state(db: &mut PgConnection) -> Result<State, sqlx::Error> {
    if exists(db, "_sqlx_migrations").await? {
        let migrated =
            number(db, "SELECT count(*) FROM _sqlx_migrations WHERE success".to_owned()).await?;
        if migrated > 0 {
            let triggers = number(
                db,
                "SELECT count(*) FROM pg_trigger
                 WHERE tgname = 'starling_number_message' AND tgrelid = 'messages'::regclass"
                    .to_owned(),
            )
            .await?;
            return Ok(State::Starling { compat: triggers > 0 });
        }
    }
    if exists(db, "starling_adoption_rooms").await? {
        return Ok(State::Underway);
    }
    let mut missing = Vec::new();
    for table in TABLES {
        if !exists(db, table).await? {
            missing.push(table);
        }
    }
    Ok(if missing.is_empty() { State::Foreign } else { State::NoChat { missing } })
}

/// Everything that the words below need.
pub(super) async fn survey(
    db: &mut PgConnection,
    state: State,
    wanted: &Schema,
    actual: &Schema,
) -> Result<Survey, AdoptError> {
    let found = diff(wanted, actual);
    let mut survey = Survey { state, ..Survey::default() };
    for name in wanted.tables.keys() {
        if actual.table(name).is_some() {
            let rows = number(db, format!("SELECT count(*) FROM {}", quote(name))).await?;
            survey.rows.push((name.clone(), rows));
        }
    }
    additions(&found, &mut survey);
    for (table, name) in too_narrow(db, actual).await? {
        let line = format!("{name} on {table} goes: it does not allow all that Starling writes");
        survey.additions.push(line);
    }
    blockers(db, &found, actual, &mut survey).await?;
    if survey.blockers.is_empty() {
        work(db, actual, &mut survey).await?;
        notes(db, &found, actual, &mut survey).await?;
    }
    Ok(survey)
}

fn additions(found: &Diff, survey: &mut Survey) {
    let lines = &mut survey.additions;
    for (name, table) in &found.tables {
        lines.push(format!("table {name}, with {} columns", table.columns.len()));
    }
    for (table, column) in &found.columns {
        lines.push(format!("column {table}.{} {}", column.name, column.kind));
    }
    for (table, index) in &found.indexes {
        let unique = if index.unique { "unique index" } else { "index" };
        lines.push(format!("{unique} {} on {table} {}", index.name, index.definition));
    }
    for (table, constraint) in &found.constraints {
        if !matches!(constraint.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique) {
            lines.push(format!("constraint {} on {table}", constraint.name));
        }
    }
    for (table, column) in &found.not_null {
        lines.push(format!("NOT NULL on {table}.{column}, once it is filled"));
    }
    for (table, column) in &found.widen {
        lines.push(format!("{table}.{column} becomes text, without a rewrite"));
    }
    for (table, column) in &found.relax {
        lines.push(format!("{table}.{column} may be NULL"));
    }
    for (_, from, to, _) in &found.renames {
        lines.push(format!("{from} is renamed to {to}"));
    }
    if survey.state == State::Foreign {
        lines.push("the triggers of db/compat, for servers that insert plain rows".to_owned());
    }
}

async fn blockers(
    db: &mut PgConnection,
    found: &Diff,
    actual: &Schema,
    survey: &mut Survey,
) -> Result<(), AdoptError> {
    survey.blockers.extend(found.problems.iter().cloned());
    if survey.state == State::Foreign
        && actual.table("messages").is_some_and(|messages| messages.column("seq").is_some())
    {
        survey.blockers.push(
            "messages has a column seq that Starling did not make: rename it, or drop it"
                .to_owned(),
        );
    }
    for (table, column) in &found.not_null {
        let there = actual.table(table).is_some_and(|t| t.column(column).is_some());
        if !there || filling(table, column).is_some() || numbered(table, column) {
            continue;
        }
        let (t, c) = (quote(table), quote(column));
        let empty = number(db, format!("SELECT count(*) FROM {t} WHERE {c} IS NULL")).await?;
        if empty > 0 {
            survey.blockers.push(match (table.as_str(), column.as_str()) {
                ("messages", "room_id") => format!("{empty} messages are in no room (room_id is NULL): delete them, or give them one"),
                _ => format!("{table}.{column} is NULL in {empty} rows, and nothing else could tell it"),
            });
        }
    }
    for (name, index) in &found.indexes {
        let Some(table) = actual.table(name) else { continue };
        if index.unique && table.has(&index.columns) && !found.mistyped.contains(name) {
            duplicates(db, name, index, survey).await?;
        }
    }
    for (name, constraint) in found.constraints.iter().chain(&found.unvalidated) {
        let Some(table) = actual.table(name) else { continue };
        if table.has(&constraint.columns) && !found.mistyped.contains(name) {
            violations(db, name, constraint, survey).await?;
        }
    }
    Ok(())
}

async fn duplicates(
    db: &mut PgConnection,
    table: &str,
    index: &Index,
    survey: &mut Survey,
) -> Result<(), AdoptError> {
    let keys = index.keys.join(", ");
    let mut conditions: Vec<String> =
        index.keys.iter().map(|key| format!("({key}) IS NOT NULL")).collect();
    conditions.extend(index.predicate.clone());
    let sql = format!(
        "SELECT count(*), (array_agg(d.value ORDER BY d.value))[1:3]
         FROM (
           SELECT concat_ws(', ', {keys}) AS value
           FROM {table}
           WHERE {conditions}
           GROUP BY {keys}
           HAVING count(*) > 1
         ) AS d",
        table = quote(table),
        conditions = conditions.join(" AND "),
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(db).await?;
    let (count, examples): (i64, Option<Vec<String>>) = (row.try_get(0)?, row.try_get(1)?);
    if count == 0 {
        return Ok(());
    }
    let what = match index.name.as_str() {
        "users_username_key" => "usernames belong to several users if case is ignored",
        "users_email_key" => "e-mail addresses belong to several users if case is ignored",
        "room_members_active_key" => {
            "pairs (room, user) have several memberships that have not ended"
        }
        "room_members_owner_key" => "rooms have several owners",
        "message_receipts_key" => "pairs (message, user) have several receipts",
        _ => "values occur more than once",
    };
    survey.blockers.push(format!(
        "{count} {what}, such as {}: {} must be unique in {table}{}",
        examples.unwrap_or_default().join(" and "),
        keys,
        index.predicate.as_ref().map(|p| format!(" where {p}")).unwrap_or_default(),
    ));
    Ok(())
}

async fn violations(
    db: &mut PgConnection,
    table: &str,
    constraint: &Constraint,
    survey: &mut Survey,
) -> Result<(), AdoptError> {
    let count = number(db, violating(table, constraint)).await?;
    if count == 0 {
        return Ok(());
    }
    survey.blockers.push(match constraint.kind {
        ConstraintKind::ForeignKey => {
            let target = constraint.target.as_deref().unwrap_or_default();
            format!(
                "{count} rows of {table} have a {} that is not in {target}: delete them, or mend them",
                constraint.columns.join(", "),
            )
        }
        _ => format!(
            "{count} rows of {table} have values that Starling can't read: it needs {}",
            constraint.condition()
        ),
    });
    Ok(())
}

/// A statement that counts the rows that break a constraint.
pub(super) fn violating(table: &str, constraint: &Constraint) -> String {
    let name = quote(table);
    match (&constraint.kind, &constraint.target, &constraint.columns[..]) {
        (ConstraintKind::ForeignKey, Some(target), [column]) => format!(
            "SELECT count(*) FROM {name} t
             WHERE t.{column} IS NOT NULL
               AND NOT EXISTS (SELECT FROM {target} o WHERE o.id = t.{column})",
            column = quote(column),
            target = quote(target),
        ),
        (ConstraintKind::Check, ..) => {
            format!("SELECT count(*) FROM {name} WHERE NOT ({})", constraint.condition())
        }
        _ => "SELECT 0::bigint".to_owned(),
    }
}

async fn work(
    db: &mut PgConnection,
    actual: &Schema,
    survey: &mut Survey,
) -> Result<(), AdoptError> {
    let has = |table: &str, column: &str| {
        actual.table(table).is_some_and(|table| table.column(column).is_some())
    };
    let rows = |table: &str| {
        survey.rows.iter().find(|(name, _)| name == table).map_or(0, |(_, rows)| *rows)
    };
    let (messages, rooms) = if has("messages", "seq") && has("rooms", "last_seq") {
        (
            number(db, "SELECT count(*) FROM messages WHERE seq IS NULL".to_owned()).await?,
            number(db, "SELECT count(*) FROM rooms WHERE last_seq IS NULL".to_owned()).await?,
        )
    } else {
        (rows("messages"), rows("rooms"))
    };
    let stays = if has("room_members", "last_read_seq") {
        let sql = "SELECT count(*) FROM room_members WHERE last_read_seq IS NULL";
        number(db, sql.to_owned()).await?
    } else {
        rows("room_members")
    };
    survey.work.push(format!("{messages} messages in {rooms} rooms get their seq"));
    survey.work.push(format!("{stays} memberships get their watermarks"));
    let receipts = "SELECT count(*) FROM message_receipts
                    WHERE delivered_at IS NULL AND read_at IS NOT NULL";
    if has("message_receipts", "read_at") && has("message_receipts", "delivered_at") {
        let receipts = number(db, receipts.to_owned()).await?;
        survey.work.push(format!("{receipts} receipts that were read are marked as delivered too"));
    }
    if !has("rooms", "direct_low") {
        let sql = "SELECT count(*) FROM rooms WHERE room_type = 'direct'";
        let direct = number(db, sql.to_owned()).await?;
        survey.work.push(format!("{direct} direct rooms get the pair of their users"));
    }
    for (table, there) in &actual.tables {
        for column in there.columns.iter().filter(|column| !column.not_null) {
            if let Some(value) = filling(table, &column.name) {
                let (t, c) = (quote(table), quote(&column.name));
                let sql = format!("SELECT count(*) FROM {t} WHERE {c} IS NULL");
                let empty = number(db, sql).await?;
                if empty > 0 {
                    let column = &column.name;
                    survey.work.push(format!("{empty} rows of {table} get {column} = {value}"));
                }
            }
        }
    }
    Ok(())
}

/// What is no obstacle now, but should be known.
async fn notes(
    db: &mut PgConnection,
    found: &Diff,
    actual: &Schema,
    survey: &mut Survey,
) -> Result<(), AdoptError> {
    for (table, constraint) in &found.later {
        let there = actual.table(table).is_some_and(|t| t.has(&constraint.columns));
        // Direct rooms without a pair are counted by their members, below.
        if !there || constraint.name == "rooms_direct_pair" {
            continue;
        }
        let count = number(db, violating(table, constraint)).await?;
        if count > 0 {
            survey.notes.push(format!(
                "{count} rows of {table} are outside of {}: {}. They may stay for now; \
                 `starling adopt --finish` will want them mended",
                constraint.name,
                constraint.condition()
            ));
        }
    }
    if let Some(name) = one_stay_each(actual) {
        survey.notes.push(format!(
            "{name} allows a user only one row in a room: until `starling adopt --finish` \
             drops it, Starling can't take back a user who left; your servers can"
        ));
    }
    let odd = "SELECT count(*) FROM (
                 SELECT r.id FROM rooms r
                 LEFT JOIN room_members rm ON rm.room_id = r.id
                 WHERE r.room_type = 'direct'
                 GROUP BY r.id
                 HAVING count(DISTINCT rm.user_id) <> 2
               ) AS odd";
    let odd = number(db, odd.to_owned()).await?;
    if odd > 0 {
        survey.notes.push(format!(
            "{odd} direct rooms have more or fewer than two users: they stay, but nobody's pair \
             opens them, and `--finish` will want them mended (room_type = 'group', with a name)"
        ));
    }
    Ok(())
}

/// A unique constraint of before that one row per user and room is all there is.
pub(super) fn one_stay_each(actual: &Schema) -> Option<String> {
    let table = actual.table("room_members")?;
    let index = table.indexes.iter().find(|index| {
        let mut columns = index.columns.clone();
        columns.sort_unstable();
        index.unique && index.predicate.is_none() && columns == ["room_id", "user_id"]
    })?;
    Some(index.name.clone())
}

/// CHECKs of before that refuse a value that Starling writes.
pub(super) async fn too_narrow(
    db: &mut PgConnection,
    actual: &Schema,
) -> Result<Vec<(String, String)>, AdoptError> {
    let mut narrow = Vec::new();
    for (name, column, values) in VALUES {
        let Some(table) = actual.table(name) else { continue };
        for constraint in checks_of(table, column) {
            // Its own expression, evaluated over the values.
            let sql = format!(
                "SELECT count(*) FROM (SELECT unnest($1::text[]) AS {}) AS v WHERE NOT ({})",
                quote(column),
                constraint.condition()
            );
            let refused: i64 =
                sqlx::query_scalar(AssertSqlSafe(sql)).bind(values).fetch_one(&mut *db).await?;
            if refused > 0 {
                narrow.push((name.to_owned(), constraint.name.clone()));
            }
        }
    }
    Ok(narrow)
}

fn checks_of<'a>(table: &'a Table, column: &'a str) -> impl Iterator<Item = &'a Constraint> {
    table
        .constraints
        .iter()
        .filter(move |c| c.kind == ConstraintKind::Check && c.columns == [column.to_owned()])
}
