//! `starling adopt`

use anyhow::{Context as _, bail};
use starling_repository::{Adoption, PoolSettings, Repository, State, Survey};

use crate::cli::AdoptArgs;

/// Brings the database of a Node.js chat backend into Starling's schema, while its
/// servers go on writing; or says only what that would be.
///
/// # Errors
/// When something stands in the way or a step fails; says what, and what to do.
pub async fn run(database_url: &str, args: &AdoptArgs) -> anyhow::Result<()> {
    let settings = PoolSettings { url: database_url.to_owned(), max: 1, min: 0 };
    let repository = Repository::connect(&settings).context("DATABASE_URL can't be used")?;
    let mut adoption = repository.adoption().await?;
    let done = adopt(&mut adoption, args).await;
    adoption.close().await.ok();
    repository.close().await;
    done
}

async fn adopt(adoption: &mut Adoption, args: &AdoptArgs) -> anyhow::Result<()> {
    let say = |line: &str| println!("{line}");
    let survey = adoption.survey().await?;
    match &survey.state {
        State::NoChat { missing } => bail!(
            "this is not the database of a chat: it has no table {}. `starling migrate` makes a \
             new one",
            missing.join(", ")
        ),
        State::Starling { compat } if args.finish => {
            if !compat {
                println!("The triggers of db/compat are not installed.");
            }
            if args.dry_run {
                println!("--finish would remove them and add the limits that waited.");
                return Ok(());
            }
            adoption.finish(&say).await?;
            println!("Done: nothing of the adoption is left, and the schema is Starling's own.");
            return Ok(());
        }
        State::Starling { compat } => {
            println!("This database is Starling's already: there is nothing to adopt.");
            if *compat {
                println!(
                    "The triggers of db/compat are installed, for servers that insert plain rows; \
                     `starling adopt --finish` removes them when the last is gone."
                );
            }
            if !args.dry_run {
                // What a run that was cut off at its very end left behind.
                adoption.clean_up().await?;
            }
            return Ok(());
        }
        State::Foreign | State::Underway if args.finish => {
            bail!("--finish comes after an adoption that is complete: run `starling adopt` first")
        }
        State::Foreign | State::Underway => {}
    }
    print(&survey);
    if !survey.blockers.is_empty() {
        bail!(
            "{} of these must be mended first; nothing was changed",
            match survey.blockers.len() {
                1 => "one thing".to_owned(),
                count => format!("{count} things"),
            }
        );
    }
    if args.dry_run {
        println!("\nNothing was changed. `starling adopt` does it; servers may go on writing.");
        return Ok(());
    }
    println!();
    let adopted = adoption.run(&say).await?;
    println!(
        "\nDone. {} messages in {} rooms are numbered 1, 2, 3 … without a gap, {} of them by this \
         run; the watermarks of {} memberships are in range.",
        adopted.messages, adopted.rooms, adopted.numbered_messages, adopted.memberships
    );
    println!(
        "Your servers may go on beside Starling. When the last of them is gone: `starling adopt \
         --finish`."
    );
    Ok(())
}

fn print(survey: &Survey) {
    let title = match survey.state {
        State::Underway => "An adoption that was cut off; it goes on from where it was.",
        _ => "The database of a Node.js chat backend.",
    };
    println!("{title}");
    let rows: Vec<String> =
        survey.rows.iter().map(|(table, rows)| format!("{table}: {rows} rows")).collect();
    list("There", &rows);
    list("To add", &survey.additions);
    list("To do", &survey.work);
    list("To know", &survey.notes);
    list("In the way", &survey.blockers);
}

fn list(title: &str, lines: &[String]) {
    if !lines.is_empty() {
        println!("\n{title}:");
        for line in lines {
            println!("  - {line}");
        }
    }
}
