//! Access tokens, refresh tokens, password hashes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use starling_protocol::{Failure, SessionId, Timestamp, UserId};
use starling_repository::Repository;
use tokio::sync::Semaphore;

/// Who is calling, as a valid access token of a live session says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The login session.
    pub session: SessionId,
}

/// What the tokens and hashes are made with.
#[derive(Clone)]
pub struct AuthSettings {
    /// The HS256 key, shared with Node.js peers.
    pub jwt_secret: Vec<u8>,
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a session after its last refresh.
    pub refresh_ttl: Duration,
    /// bcrypt's cost, 12 but in tests.
    pub bcrypt_cost: u32,
}

/// The claims of an access token.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    sid: SessionId,
    iat: i64,
    exp: i64,
}

/// A refresh token and what is stored of it.
pub(crate) struct RefreshToken {
    pub(crate) text: String,
    pub(crate) hash: Vec<u8>,
}

/// How long another instance may go on with a session that ended elsewhere:
/// the contract allows 5 s.
const ALIVE_FOR: Duration = Duration::from_secs(3);
/// An answer of the database is worth [`ALIVE_FOR`] if it took no longer: both
/// together stay below the 5 s.
const FRESH: Duration = Duration::from_millis(1500);
/// How long this instance knows better than an answer that was on its way when a
/// session ended: longer than any statement lasts.
const ENDED_FOR: Duration = Duration::from_secs(30);
/// Sessions remembered as alive; beyond, the database is asked more often.
const ALIVE_MAX: u64 = 100_000;
/// Calls that may wait for a hash: at cost 12 the last of them waits seconds.
const HASHES_WAITING: usize = 64;

/// Makes and checks tokens and password hashes.
pub struct Auth {
    settings: AuthSettings,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    /// Sessions seen alive a moment ago.
    alive: moka::sync::Cache<SessionId, ()>,
    /// Sessions that ended here a moment ago.
    ended: moka::sync::Cache<SessionId, ()>,
    /// One hash a core at once: each takes a quarter of a second of CPU.
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Compared with when the user is unknown, so that this takes as long.
    no_password: String,
}

impl Auth {
    /// Prepares keys and the hash that stands in for unknown users.
    ///
    /// # Errors
    /// When bcrypt refuses the cost.
    pub fn new(settings: AuthSettings) -> Result<Self, bcrypt::BcryptError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "sub"]);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            encoding: EncodingKey::from_secret(&settings.jwt_secret),
            decoding: DecodingKey::from_secret(&settings.jwt_secret),
            validation,
            alive: moka::sync::Cache::builder()
                .max_capacity(ALIVE_MAX)
                .time_to_live(ALIVE_FOR)
                .build(),
            ended: moka::sync::Cache::builder()
                .max_capacity(ALIVE_MAX)
                .time_to_live(ENDED_FOR)
                .build(),
            hashing: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(HASHES_WAITING)),
            no_password: bcrypt::hash("nobody's password", settings.bcrypt_cost)?,
            settings,
        })
    }

    /// Signs an access token. Returns it with its life in seconds.
    ///
    /// # Errors
    /// `unavailable` if the key can't sign, which HS256 never says.
    pub fn access_token(&self, who: Identity, now: Timestamp) -> Result<(String, i64), Failure> {
        let life = i64::try_from(self.settings.access_ttl.as_secs()).unwrap_or(i64::MAX / 4);
        self.token_for(who, now, life).map(|token| (token, life))
    }

    /// Signs an access token that lives for so many seconds.
    ///
    /// # Errors
    /// As [`Self::access_token`].
    pub fn token_for(&self, who: Identity, now: Timestamp, life: i64) -> Result<String, Failure> {
        let iat = now.utc().timestamp();
        let claims = Claims { sub: who.user.to_string(), sid: who.session, iat, exp: iat + life };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).map_err(
            |error| {
                tracing::error!(%error, "an access token could not be signed");
                Failure::unavailable()
            },
        )
    }

    /// Who a token names, from its signature and times alone.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn claims(&self, token: &str) -> Result<Identity, Failure> {
        let refused = || Failure::unauthorized("The access token is not valid. Log in again.");
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_| refused())?
            .claims;
        let user = claims.sub.parse().map(UserId).map_err(|_| refused())?;
        Ok(Identity { user, session: claims.sid })
    }

    /// Who a token names, if its session still lives.
    ///
    /// # Errors
    /// `unauthorized`; `unavailable` when the database can't say.
    pub async fn identify(
        &self,
        repository: &Repository,
        token: &str,
    ) -> Result<Identity, Failure> {
        let who = self.claims(token)?;
        if self.alive.contains_key(&who.session) || self.is_alive(repository, who.session).await? {
            return Ok(who);
        }
        Err(Failure::unauthorized("The session has ended. Log in again."))
    }

    /// Asks the database whether a session lives.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn is_alive(
        &self,
        repository: &Repository,
        session: SessionId,
    ) -> Result<bool, Failure> {
        let asked = Instant::now();
        let alive = repository.login_alive(session).await.map_err(crate::storage)?;
        Ok(self.judge(session, alive, asked))
    }

    /// What an answer of the database, asked at this time, is worth now.
    pub(crate) fn judge(&self, session: SessionId, alive: bool, asked: Instant) -> bool {
        if !alive {
            return false;
        }
        // An answer that took long is true of when it was asked for, and not remembered.
        if asked.elapsed() < FRESH {
            self.alive.insert(session, ());
        }
        // It may have ended here while the database was answering: `forget` notes
        // that before it looks for what was just inserted.
        if self.ended.contains_key(&session) {
            self.alive.invalidate(&session);
            return false;
        }
        true
    }

    /// From now on this instance refuses the session's tokens.
    pub(crate) fn forget(&self, session: SessionId) {
        self.ended.insert(session, ());
        self.alive.invalidate(&session);
    }

    pub(crate) fn refresh_expires(&self, now: Timestamp) -> Timestamp {
        Timestamp::from(now.utc() + self.settings.refresh_ttl)
    }

    pub(crate) fn new_refresh_token() -> RefreshToken {
        let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        RefreshToken { hash: Self::refresh_hash(&text), text }
    }

    /// Only this is stored: 256 random bits need no slow hash.
    pub(crate) fn refresh_hash(token: &str) -> Vec<u8> {
        Sha256::digest(token.as_bytes()).to_vec()
    }

    /// Hashes a new password, of which [`crate::validate::password`] has seen that
    /// bcrypt reads all of it.
    ///
    /// # Errors
    /// `rate_limited` when too many wait, `unavailable` if bcrypt fails.
    pub async fn hash(&self, password: String) -> Result<String, Failure> {
        let cost = self.settings.bcrypt_cost;
        self.blocking(move || bcrypt::hash(password, cost)).await
    }

    /// Compares a password with a stored hash; without one it takes as long and
    /// says no. Hashes made by Node's bcrypt (`$2a$`, `$2b$`, `$2y$`) serve.
    ///
    /// # Errors
    /// As [`Self::hash`].
    pub(crate) async fn verify(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, Failure> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.no_password.clone());
        // A stored hash that is none is a wrong password, not a broken server.
        let same =
            self.blocking(move || Ok(bcrypt::verify(password, &hash).unwrap_or(false))).await?;
        Ok(same && known)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, bcrypt::BcryptError> + Send + 'static,
    ) -> Result<T, Failure> {
        let _place = self.waiting.try_acquire().map_err(|_| {
            Failure::rate_limited("Too many people log in right now. Try again shortly.", 2000)
        })?;
        let permit =
            self.hashing.clone().acquire_owned().await.map_err(|_| Failure::unavailable())?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        match done.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::error!(%error, "bcrypt failed");
                Err(Failure::unavailable())
            }
            Err(error) => {
                tracing::error!(%error, "a hashing thread failed");
                Err(Failure::unavailable())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn auth() -> Auth {
        Auth::new(AuthSettings {
            jwt_secret: vec![7; 32],
            access_ttl: Duration::from_secs(900),
            refresh_ttl: Duration::from_secs(1000),
            bcrypt_cost: 4,
        })
        .unwrap()
    }

    #[test]
    fn a_token_names_its_user_until_it_expires() {
        let auth = auth();
        let who = Identity { user: UserId(7), session: SessionId(uuid::Uuid::from_u128(9)) };
        let (token, life) = auth.access_token(who, Timestamp::now()).unwrap();
        assert_eq!((auth.claims(&token).unwrap(), life), (who, 900));
        let old = auth.token_for(who, Timestamp::now(), -1).unwrap();
        assert!(auth.claims(&old).is_err());
        let other = Auth::new(AuthSettings { jwt_secret: vec![8; 32], ..auth.settings.clone() });
        assert!(other.unwrap().claims(&token).is_err());
    }

    #[tokio::test]
    async fn hashes_made_by_node_are_accepted() {
        let auth = auth();
        let hash = auth.hash("correct horse".into()).await.unwrap();
        for prefix in ["$2a$", "$2b$", "$2y$"] {
            let stored = format!("{prefix}{}", &hash[4..]);
            assert!(auth.verify("correct horse".into(), Some(stored)).await.unwrap(), "{prefix}");
        }
        assert!(!auth.verify("wrong".into(), Some(hash)).await.unwrap());
        assert!(!auth.verify("nobody's password".into(), None).await.unwrap());
        assert!(!auth.verify("x".into(), Some("no hash".into())).await.unwrap());
    }
}
