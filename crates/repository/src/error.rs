//! What can go wrong below the rules.

/// The result of a unit of work.
pub type Result<T> = std::result::Result<T, Error>;

/// A unit of work failed; nothing of it was stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL can't be reached, is shutting down, took too long, or refused
    /// the statement. A commit whose answer was lost may have taken place.
    #[error("the database did not do it")]
    Unavailable(#[from] sqlx::Error),
    /// PostgreSQL did not answer lately, so it was not asked.
    #[error("the database is away")]
    Away,
    /// A stored value that Starling never writes.
    #[error("impossible value {value:?} in {table}.{column}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// Which column.
        column: &'static str,
        /// What it holds.
        value: String,
    },
}

impl Error {
    /// Whether the database is at fault, so that the same call may succeed
    /// later. False for a value that the schema refused and for impossible rows.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(sqlx::Error::Database(error)) => {
                // 22: data exception, 23: integrity constraint, 54: too complex.
                !error
                    .code()
                    .is_some_and(|code| ["22", "23", "54"].iter().any(|c| code.starts_with(c)))
            }
            Self::Unavailable(_) | Self::Away => true,
            Self::Corrupt { .. } => false,
        }
    }

    /// Whether PostgreSQL ended this transaction in favour of another, so that the
    /// same may be tried again at once.
    pub(crate) fn is_crossed(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(error)) = self else { return false };
        // A deadlock; a failure to serialise, where that isolation is the default.
        error.code().is_some_and(|code| code == "40P01" || code == "40001")
    }

    pub(crate) fn corrupt(
        table: &'static str,
        column: &'static str,
        value: impl Into<String>,
    ) -> Self {
        Self::Corrupt { table, column, value: value.into() }
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// Whether this is a violation of the named unique index.
pub(crate) fn violates(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().and_then(|e| e.constraint()) == Some(constraint)
}

/// Whether this is a reference to a row that does not exist.
pub(crate) fn unknown_reference(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.is_foreign_key_violation())
}
