//! `starling migrate`

use anyhow::Context as _;
use starling_repository::{PoolSettings, Repository};

/// Brings the database at this address up to date.
///
/// # Errors
/// When it can't be reached or a migration fails.
pub async fn run(database_url: &str) -> anyhow::Result<()> {
    let settings = PoolSettings { url: database_url.to_owned(), max: 2, min: 0 };
    let repository = Repository::connect(&settings).context("DATABASE_URL can't be used")?;
    repository.migrate().await.context("the database could not be brought up to date")?;
    repository.close().await;
    Ok(())
}
