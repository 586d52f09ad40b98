//! Takes over the database of a Node.js chat backend of the same design, while
//! its servers go on writing.
//!
//! Every step looks at what is there and does what is missing, so that the whole
//! may be ended at any moment and run again:
//!
//! 1. Missing tables; small changes of the old ones.
//! 2. *The switch*, one short transaction: the new columns, and the triggers of
//!    `db/compat`, without which a server's plain INSERT would be left without `seq`.
//! 3. Every room is numbered ([`numbering`]).
//! 4. Indexes, built while servers write; watermarks ([`watermarks`]).
//! 5. Constraints: `NOT VALID` first, then validated, which blocks nobody.
//! 6. All is looked at once more ([`verify`]); then the migrations are recorded,
//!    and from there on the database is Starling's.
//!
//! [`Adoption::finish`] comes later, when the last of those servers is gone.

mod ddl;
mod fill;
mod numbering;
mod plan;
mod schema;
mod survey;
mod verify;
mod watermarks;

use sqlx::{Connection, PgConnection};

use self::ddl::{Patience, change, is_busy, long};
use self::plan::{Diff, column_sql, diff, filling, index_sql, quote, table_sql};
use self::schema::{Constraint, ConstraintKind, Index, Schema};
use crate::Repository;
use crate::pool::MIGRATIONS;

/// The triggers for servers that insert plain rows.
pub const COMPAT_INSTALL: &str = include_str!("../../../../db/compat/install.sql");
/// Takes them away.
pub const COMPAT_REMOVE: &str = include_str!("../../../../db/compat/remove.sql");

/// Tells of progress, a line a call.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Of the advisory lock that keeps two adoptions of one database apart.
const LOCK: i64 = 0x5354_4152_4144_4f50;
/// The oldest PostgreSQL that has all that is used here.
const POSTGRES: i32 = 150_000;
/// How often rooms are numbered anew because servers deleted numbered messages.
const ROUNDS: u32 = 5;
/// From here on a migration makes functions and triggers, which comparing tables
/// does not see.
const ROUTINES: &str = "-- Functions and triggers:";
/// Messages without `seq`, in the order in which they get it.
const UNNUMBERED: &str = "starling_adoption_unnumbered_idx";
/// Memberships without watermarks.
const UNMARKED: &str = "starling_adoption_unmarked_idx";

/// Why an adoption did not take place, or did not end.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It can't be done as things are; says what to do.
    #[error("{0}")]
    Refused(String),
    /// A step failed.
    #[error("{step}: {error}")]
    Step {
        /// What was being done.
        step: String,
        /// Why it failed.
        error: sqlx::Error,
    },
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The connection could not be made.
    #[error(transparent)]
    Repository(#[from] crate::Error),
}

impl AdoptError {
    fn step(step: &str, error: sqlx::Error) -> Self {
        Self::Step { step: step.to_owned(), error }
    }
}

/// What a database is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// Starling's own, or adopted.
    Starling {
        /// Whether the triggers of `db/compat` are installed.
        compat: bool,
    },
    /// An adoption began and did not end.
    Underway,
    /// A Node.js backend's.
    #[default]
    Foreign,
    /// Something else, or nothing.
    NoChat {
        /// Tables that it lacks.
        missing: Vec<&'static str>,
    },
}

/// What was seen, in words; nothing was changed for it.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// What the database is.
    pub state: State,
    /// Tables that are there, with their rows.
    pub rows: Vec<(String, i64)>,
    /// What would be added or changed in the schema.
    pub additions: Vec<String>,
    /// What would be done to rows.
    pub work: Vec<String>,
    /// What must be mended first: while there is any, nothing is changed.
    pub blockers: Vec<String>,
    /// What to know beforehand.
    pub notes: Vec<String>,
}

/// What an adoption came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    /// Rooms that this run numbered.
    pub numbered_rooms: u64,
    /// Messages that this run numbered.
    pub numbered_messages: u64,
    /// Rooms in all, each of them verified.
    pub rooms: i64,
    /// Messages in all.
    pub messages: i64,
    /// Memberships in all.
    pub memberships: i64,
}

/// An adoption of one database. No second one runs beside it.
pub struct Adoption {
    db: PgConnection,
    schema: String,
    wanted: Schema,
}

impl Repository {
    /// Begins: a connection of its own, and the lock against a second adoption.
    ///
    /// # Errors
    /// The database can't be reached, is too old, or somebody else is at it.
    pub async fn adoption(&self) -> Result<Adoption, AdoptError> {
        // Its own connection: these settings must not stay in the pool.
        let mut db = self.pool.acquire().await?.detach();
        let version: i32 =
            sqlx::query_scalar!(r#"SELECT current_setting('server_version_num')::int AS "v!""#)
                .fetch_one(&mut db)
                .await?;
        if version < POSTGRES {
            return Err(AdoptError::Refused(format!(
                "PostgreSQL 15 or newer is needed; this is {}",
                version / 10_000
            )));
        }
        // If this process is killed, the server ends its statement, also a long one.
        sqlx::raw_sql(
            "SET statement_timeout = 0;
             SET idle_in_transaction_session_timeout = 0;
             SET idle_in_transaction_session_timeout = '5min';
             SET client_connection_check_interval = '500ms';
             SET client_min_messages = warning;
             SET timezone = 'UTC'",
        )
        .execute(&mut db)
        .await?;
        let schema = sqlx::query_scalar!(r#"SELECT current_schema()::text AS "schema?""#)
            .fetch_one(&mut db)
            .await?
            .ok_or_else(|| {
                AdoptError::Refused("search_path names no schema that exists".to_owned())
            })?;
        // Names in the catalogs' definitions then come without their schema.
        sqlx::query!("SELECT set_config('search_path', quote_ident($1), false)", schema)
            .fetch_one(&mut db)
            .await?;
        let mut patience = 0;
        loop {
            let locked =
                sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "locked!""#, LOCK)
                    .fetch_one(&mut db)
                    .await?;
            if locked {
                break;
            }
            // One that was killed a moment ago may still have its last statement running.
            patience += 1;
            if patience > 50 {
                return Err(AdoptError::Refused(
                    "another `starling adopt` is at work on this database".to_owned(),
                ));
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        let wanted = schema::reference(&mut db).await?;
        Ok(Adoption { db, schema, wanted })
    }
}

impl Adoption {
    /// Looks at everything and changes nothing. Reads all rows of most tables.
    ///
    /// # Errors
    /// The database failed.
    pub async fn survey(&mut self) -> Result<Survey, AdoptError> {
        let state = survey::state(&mut self.db).await?;
        match state {
            State::Starling { .. } | State::NoChat { .. } => {
                Ok(Survey { state, ..Survey::default() })
            }
            State::Foreign | State::Underway => {
                let actual = self.actual().await?;
                survey::survey(&mut self.db, state, &self.wanted, &actual).await
            }
        }
    }

    /// Adopts the database, or goes on where an earlier run was cut off. Call it
    /// when [`Adoption::survey`] found no blocker.
    ///
    /// # Errors
    /// Something can't be done; says what. What was done so far stays, servers go
    /// on working, and another run goes on from there.
    pub async fn run(&mut self, say: Say<'_>) -> Result<Adopted, AdoptError> {
        say("Adding what is missing");
        self.old_tables().await?;
        self.new_tables().await?;
        self.switch().await?;
        say("Preparing indexes");
        self.helper_index(UNNUMBERED, "messages", "(room_id, created_at, id) WHERE seq IS NULL")
            .await?;
        self.indexes(say, |index| {
            matches!(index.name.as_str(), "message_receipts_key" | "rooms_direct_key")
        })
        .await?;
        let mut rounds = 0;
        let (numbered, verified) = loop {
            let numbered = self.number(say).await?;
            say("Verifying");
            let (verified, gaps) = verify::run(&mut self.db).await?;
            if gaps.is_empty() {
                break (numbered, verified);
            }
            rounds += 1;
            if rounds >= ROUNDS {
                return Err(AdoptError::Refused(verify::sentence(&gaps)));
            }
            say(&format!("  {}", verify::sentence(&gaps)));
            say("  These rooms are numbered once more");
            self.reopen(&gaps).await?;
        };
        self.compare().await?;
        self.record().await?;
        self.clean_up().await?;
        Ok(Adopted {
            numbered_rooms: numbered.rooms,
            numbered_messages: numbered.messages,
            rooms: verified.rooms,
            messages: verified.messages,
            memberships: verified.memberships,
        })
    }

    /// From messages without numbers to constraints that keep them.
    async fn number(&mut self, say: Say<'_>) -> Result<numbering::Numbered, AdoptError> {
        say("Numbering messages");
        let numbered = numbering::run(&mut self.db, say).await?;
        let paired = fill::direct_pairs(&mut self.db).await?;
        say(&format!(
            "  {} messages in {} rooms numbered; {paired} direct rooms paired",
            numbered.messages, numbered.rooms
        ));
        say("Building indexes, while servers write");
        self.indexes(say, |_| true).await?;
        say("Setting watermarks from receipts");
        let receipts = watermarks::complete_receipts(&mut self.db).await?;
        self.helper_index(UNMARKED, "room_members", "(room_id) WHERE last_read_seq IS NULL")
            .await?;
        let stays = watermarks::run(&mut self.db, say).await?;
        say(&format!("  {stays} memberships set; {receipts} receipts completed"));
        say("Adding constraints");
        self.not_null(say).await?;
        self.constraints().await?;
        Ok(numbered)
    }

    /// Puts rooms back to where they have no numbers: some of their messages were
    /// deleted since they got them. A room is one transaction here, whatever its
    /// size: it is rare, and a room that is half without numbers can't be told from
    /// one that is half numbered.
    async fn reopen(&mut self, rooms: &[verify::Gap]) -> Result<(), AdoptError> {
        let what = "numbering rooms once more";
        let lax = "ALTER TABLE rooms ALTER COLUMN last_seq DROP NOT NULL;
             ALTER TABLE messages ALTER COLUMN seq DROP NOT NULL;
             ALTER TABLE room_members
               ALTER COLUMN joined_seq DROP NOT NULL,
               ALTER COLUMN last_delivered_seq DROP NOT NULL,
               ALTER COLUMN last_read_seq DROP NOT NULL";
        change(&mut self.db, what, lax).await?;
        for gap in rooms {
            let room = gap.room;
            let sql = format!(
                "UPDATE rooms SET last_seq = NULL WHERE id = {room};
                 UPDATE messages SET seq = NULL WHERE room_id = {room};
                 UPDATE room_members
                 SET joined_seq = NULL, last_delivered_seq = NULL, last_read_seq = NULL
                 WHERE room_id = {room}"
            );
            change(&mut self.db, what, &sql).await?;
        }
        Ok(())
    }

    /// Removes what only the adoption itself needed; nothing if that is gone.
    ///
    /// # Errors
    /// The database failed.
    pub async fn clean_up(&mut self) -> Result<(), AdoptError> {
        for index in [UNNUMBERED, UNMARKED] {
            long(
                &mut self.db,
                "dropping a helper index",
                &format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"),
            )
            .await?;
        }
        change(
            &mut self.db,
            "dropping the list of rooms",
            "DROP TABLE IF EXISTS starling_adoption_rooms",
        )
        .await
    }

    /// No server that inserts plain rows is left: the triggers go, and the limits
    /// that such servers might not have kept are added. May be repeated.
    ///
    /// # Errors
    /// Rows break one of the limits: says which; then nothing is changed.
    pub async fn finish(&mut self, say: Say<'_>) -> Result<(), AdoptError> {
        let actual = self.actual().await?;
        let found = diff(&self.wanted, &actual);
        let mut wrong = Vec::new();
        for (table, constraint) in found.later.iter().chain(&found.unvalidated) {
            let sql = survey::violating(table, constraint);
            // Of constraints known only now, hence no macro.
            let count: i64 =
                sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut self.db).await?;
            if count > 0 {
                wrong.push(format!("{count} rows of {table} need {}", constraint.condition()));
            }
        }
        if !wrong.is_empty() {
            return Err(AdoptError::Refused(format!(
                "these must be mended first, and nothing was changed: {}",
                wrong.join("; ")
            )));
        }
        say("Removing the triggers of db/compat");
        change(&mut self.db, "removing the triggers", COMPAT_REMOVE).await?;
        if let Some(name) = survey::one_stay_each(&actual) {
            let constraint = actual
                .table("room_members")
                .is_some_and(|table| table.constraints.iter().any(|c| c.name == name));
            let sql = if constraint {
                format!("ALTER TABLE room_members DROP CONSTRAINT {}", quote(&name))
            } else {
                format!("DROP INDEX {}", quote(&name))
            };
            say(&format!("Dropping {name}: who returns to a room gets a row of its own"));
            change(&mut self.db, "dropping a unique constraint", &sql).await?;
        }
        say("Adding the limits that waited");
        for (table, constraint) in &found.later {
            self.add(table, constraint).await?;
        }
        for (table, constraint) in &found.unvalidated {
            self.validate(table, constraint).await?;
        }
        Ok(())
    }

    async fn actual(&mut self) -> Result<Schema, AdoptError> {
        Ok(schema::read(&mut self.db, &self.schema).await?)
    }

    async fn diff(&mut self) -> Result<Diff, AdoptError> {
        let actual = self.actual().await?;
        Ok(diff(&self.wanted, &actual))
    }

    /// Small changes of tables that are there. None of them reads or rewrites rows.
    async fn old_tables(&mut self) -> Result<(), AdoptError> {
        let actual = self.actual().await?;
        for (table, constraint) in survey::too_narrow(&mut self.db, &actual).await? {
            let sql =
                format!("ALTER TABLE {} DROP CONSTRAINT {}", quote(&table), quote(&constraint));
            change(&mut self.db, "dropping a CHECK that is too narrow", &sql).await?;
        }
        let found = self.diff().await?;
        for (table, from, to, constraint) in &found.renames {
            let (from, to, table) = (quote(from), quote(to), quote(table));
            let sql = if *constraint {
                format!("ALTER TABLE {table} RENAME CONSTRAINT {from} TO {to}")
            } else {
                format!("ALTER INDEX {from} RENAME TO {to}")
            };
            change(&mut self.db, "renaming", &sql).await?;
        }
        let mut changes: Vec<(&String, String)> = Vec::new();
        for (table, column) in &found.widen {
            changes.push((table, format!("ALTER COLUMN {} TYPE text", quote(column))));
        }
        for (table, column) in &found.relax {
            changes.push((table, format!("ALTER COLUMN {} DROP NOT NULL", quote(column))));
        }
        for (table, column, default) in &found.defaults {
            // Of a room's last_seq, NULL says something: see the switch.
            if !plan::numbered(table, column) {
                let column = quote(column);
                changes.push((table, format!("ALTER COLUMN {column} SET DEFAULT {default}")));
            }
        }
        for (table, options) in &found.options {
            changes.push((table, format!("SET ({options})")));
        }
        for (table, what) in changes {
            let sql = format!("ALTER TABLE {} {what}", quote(table));
            change(&mut self.db, &format!("changing {table}"), &sql).await?;
        }
        Ok(())
    }

    async fn new_tables(&mut self) -> Result<(), AdoptError> {
        let found = self.diff().await?;
        // In an order in which each refers to those before it.
        let order: Vec<&String> = MIGRATED_ORDER
            .iter()
            .filter_map(|name| found.tables.iter().map(|(table, _)| table).find(|t| t == name))
            .chain(
                found
                    .tables
                    .iter()
                    .map(|(t, _)| t)
                    .filter(|t| !MIGRATED_ORDER.contains(&t.as_str())),
            )
            .collect();
        for name in order {
            if let Some((_, table)) = found.tables.iter().find(|(other, _)| other == name) {
                change(&mut self.db, &format!("making {name}"), &table_sql(name, table)).await?;
            }
        }
        Ok(())
    }

    /// The moment from which on servers' INSERTs are numbered: columns, triggers
    /// and the list of half-numbered rooms come at once. It waits until no
    /// transaction that wrote to these tables is open, so none is missed.
    ///
    /// Rooms of before have no `last_seq`, those to come begin with 0: this is what
    /// tells them apart.
    async fn switch(&mut self) -> Result<(), AdoptError> {
        let found = self.diff().await?;
        // All four in less than the time after which PostgreSQL looks for deadlocks.
        let mut sql = "SET LOCAL statement_timeout = '600ms';
             LOCK TABLE users, rooms, room_members, messages IN ACCESS EXCLUSIVE MODE;
             SET LOCAL statement_timeout = 0;\n"
            .to_owned();
        for (table, column) in &found.columns {
            let lax = plan::numbered(table, &column.name);
            let column = if table == "rooms" && column.name == "last_seq" {
                schema::Column { default: None, ..column.clone() }
            } else {
                column.clone()
            };
            let definition = column_sql(&column, lax || column.default.is_none());
            sql.push_str(&format!("ALTER TABLE {} ADD COLUMN {definition};\n", quote(table)));
        }
        sql.push_str(
            "ALTER TABLE rooms ALTER COLUMN last_seq SET DEFAULT 0;
             CREATE TABLE IF NOT EXISTS starling_adoption_rooms (
               room_id    integer PRIMARY KEY,
               numbered   bigint NOT NULL,
               created_at timestamptz,
               message_id uuid
             );\n",
        );
        sql.push_str(COMPAT_INSTALL);
        let there = self.actual().await?.table("starling_adoption_rooms").is_some();
        if found.columns.is_empty() && there {
            // An earlier run came past here; the triggers came in the same transaction.
            return Ok(());
        }
        change(&mut self.db, "switching to numbered messages", &sql).await
    }

    /// An index that only this adoption needs.
    async fn helper_index(
        &mut self,
        name: &str,
        table: &str,
        what: &str,
    ) -> Result<(), AdoptError> {
        let actual = self.actual().await?;
        match actual.table(table).and_then(|table| table.index(name)) {
            Some(index) if index.valid => return Ok(()),
            Some(_) => self.drop_index(name).await?,
            None => {}
        }
        let sql = format!("CREATE INDEX CONCURRENTLY {name} ON {table} {what}");
        long(&mut self.db, "building a helper index", &sql).await?;
        long(&mut self.db, "looking at the table", &format!("ANALYZE {table}")).await
    }

    async fn drop_index(&mut self, name: &str) -> Result<(), AdoptError> {
        let sql = format!("DROP INDEX CONCURRENTLY IF EXISTS {}", quote(name));
        long(&mut self.db, &format!("dropping the broken index {name}"), &sql).await
    }

    async fn indexes(
        &mut self,
        say: Say<'_>,
        wanted: impl Fn(&Index) -> bool,
    ) -> Result<(), AdoptError> {
        let found = self.diff().await?;
        for name in &found.broken_indexes {
            self.drop_index(name).await?;
        }
        for (table, index) in found.indexes.iter().filter(|(_, index)| wanted(index)) {
            say(&format!("  {} on {table}", index.name));
            let what = format!("building {}", index.name);
            let mut patience = Patience::new();
            loop {
                let sql = index_sql(table, index, true);
                match long(&mut self.db, &what, &sql).await {
                    Ok(()) => break,
                    Err(AdoptError::Step { error, .. }) if is_busy(&error) => {
                        self.drop_index(&index.name).await?;
                        patience.again(&what).await?;
                    }
                    Err(error) => {
                        self.drop_index(&index.name).await.ok();
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// NOT NULL without a long lock: a CHECK that is not validated keeps new rows
    /// right, then old ones are filled and it is validated, and PostgreSQL believes
    /// it instead of reading the table under its exclusive lock.
    async fn not_null(&mut self, say: Say<'_>) -> Result<(), AdoptError> {
        let found = self.diff().await?;
        for (table, column) in &found.not_null {
            self.fill(table, column, say).await?;
            let (place, name) = (quote(table), quote(column));
            let check = quote(&format!("starling_adoption_{column}_set"));
            let what = format!("making {table}.{column} NOT NULL");
            let sql = format!(
                "ALTER TABLE {place} DROP CONSTRAINT IF EXISTS {check};
                 ALTER TABLE {place} ADD CONSTRAINT {check} CHECK ({name} IS NOT NULL) NOT VALID"
            );
            change(&mut self.db, &what, &sql).await?;
            // What a transaction that was open then has brought.
            self.fill(table, column, say).await?;
            let sql = format!("ALTER TABLE {place} VALIDATE CONSTRAINT {check}");
            long(&mut self.db, &what, &sql).await?;
            let sql = format!(
                "ALTER TABLE {place} ALTER COLUMN {name} SET NOT NULL;
                 ALTER TABLE {place} DROP CONSTRAINT {check}"
            );
            change(&mut self.db, &what, &sql).await?;
        }
        Ok(())
    }

    async fn fill(&mut self, table: &str, column: &str, say: Say<'_>) -> Result<(), AdoptError> {
        if table == "room_members" && plan::numbered(table, column) {
            watermarks::run(&mut self.db, say).await?;
        } else if table != "messages"
            && let Some(value) = filling(table, column)
        {
            fill::column(&mut self.db, table, column, value, say).await?;
        }
        Ok(())
    }

    async fn constraints(&mut self) -> Result<(), AdoptError> {
        let found = self.diff().await?;
        for (table, constraint) in &found.constraints {
            match constraint.kind {
                ConstraintKind::PrimaryKey | ConstraintKind::Unique => {
                    let kind = match constraint.kind {
                        ConstraintKind::PrimaryKey => "PRIMARY KEY",
                        _ => "UNIQUE",
                    };
                    let name = quote(&constraint.name);
                    let sql = format!(
                        "ALTER TABLE {} ADD CONSTRAINT {name} {kind} USING INDEX {name}",
                        quote(table)
                    );
                    change(&mut self.db, &format!("adding {}", constraint.name), &sql).await?;
                }
                ConstraintKind::ForeignKey | ConstraintKind::Check => {
                    self.add(table, constraint).await?;
                }
            }
        }
        for (table, constraint) in &found.unvalidated {
            self.validate(table, constraint).await?;
        }
        Ok(())
    }

    async fn add(&mut self, table: &str, constraint: &Constraint) -> Result<(), AdoptError> {
        let sql = format!(
            "ALTER TABLE {} ADD CONSTRAINT {} {} NOT VALID",
            quote(table),
            quote(&constraint.name),
            constraint.definition
        );
        change(&mut self.db, &format!("adding {}", constraint.name), &sql).await?;
        self.validate(table, constraint).await
    }

    async fn validate(&mut self, table: &str, constraint: &Constraint) -> Result<(), AdoptError> {
        let name = quote(&constraint.name);
        let sql = format!("ALTER TABLE {} VALIDATE CONSTRAINT {name}", quote(table));
        long(&mut self.db, &format!("validating {}", constraint.name), &sql).await
    }

    /// Whether nothing is missing any more.
    async fn compare(&mut self) -> Result<(), AdoptError> {
        let found = self.diff().await?;
        let mut left: Vec<String> = found.problems;
        left.extend(found.tables.iter().map(|(table, _)| table.clone()));
        left.extend(found.columns.iter().map(|(table, c)| format!("{table}.{}", c.name)));
        left.extend(found.not_null.iter().map(|(table, c)| format!("NOT NULL of {table}.{c}")));
        left.extend(found.indexes.iter().map(|(_, index)| index.name.clone()));
        left.extend(found.constraints.iter().map(|(_, constraint)| constraint.name.clone()));
        if left.is_empty() {
            return Ok(());
        }
        Err(AdoptError::Refused(format!(
            "somebody else changes the schema at the same time; these are missing again: {}",
            left.join(", ")
        )))
    }

    /// From here on the database is Starling's: `migrate` and `serve` take it.
    async fn record(&mut self) -> Result<(), AdoptError> {
        // Last, so that they do not fire for what was filled in above.
        for migration in MIGRATIONS.iter() {
            let Some((_, routines)) = migration.sql.as_str().split_once(ROUTINES) else { continue };
            // Those of one migration come together: the first stands for all.
            let first = routines.split("CREATE FUNCTION ").nth(1).unwrap_or_default();
            let there: bool = sqlx::query_scalar("SELECT to_regproc($1) IS NOT NULL")
                .bind(first.split('(').next())
                .fetch_one(&mut self.db)
                .await?;
            if !there {
                change(&mut self.db, "adding functions and triggers", routines).await?;
            }
        }
        MIGRATIONS.run_direct(None, &mut self.db, true).await.map_err(crate::Error::from)?;
        Ok(())
    }

    /// Ends the connection, and with it the lock.
    ///
    /// # Errors
    /// The database failed.
    pub async fn close(self) -> Result<(), AdoptError> {
        Ok(self.db.close().await?)
    }
}

/// Tables that others refer to, first.
const MIGRATED_ORDER: [&str; 3] = ["users", "rooms", "login_sessions"];
