//! Accounts and login sessions.

use starling_protocol::http::{Authenticated, Login, Register, UserPatch};
use starling_protocol::{Failure, SessionId, Timestamp, User, UserId, limits};
use starling_repository::{CreateUser, NewUser, Rotation};
use uuid::Uuid;

use crate::auth::{Auth, Identity};
use crate::{Chat, storage, validate};

impl Chat {
    /// Makes an account and its first session.
    ///
    /// # Errors
    /// `validation_failed`, `conflict` when name or e-mail is taken,
    /// `rate_limited`, `unavailable`.
    pub async fn register(&self, request: Register) -> Result<Authenticated, Failure> {
        validate::username(&request.username)?;
        validate::email(&request.email)?;
        validate::password(&request.password)?;
        let display_name = request.display_name.unwrap_or_else(|| request.username.clone());
        validate::text("displayName", &display_name, limits::DISPLAY_NAME_CHARS)?;
        let new = NewUser {
            password_hash: self.auth.hash(request.password).await?,
            username: request.username,
            email: request.email,
            display_name,
            created_at: Timestamp::now(),
        };
        match self.repository.create_user(new).await.map_err(storage)? {
            CreateUser::Created(user) => self.log_in_as(user).await,
            CreateUser::UsernameTaken => {
                Err(Failure::conflict("This username is taken. Choose another."))
            }
            CreateUser::EmailTaken => {
                Err(Failure::conflict("An account with this e-mail address exists already."))
            }
        }
    }

    /// Starts a session for who knows the password.
    ///
    /// # Errors
    /// `unauthorized`, the same and after the same work for a wrong password and
    /// an unknown name; `rate_limited`, `unavailable`.
    pub async fn log_in(&self, request: Login) -> Result<Authenticated, Failure> {
        let refused = || Failure::unauthorized("The username or the password is wrong.");
        // Such a name or password can't be stored, so it can't be right; the
        // work is done all the same.
        let storable = !request.username.contains('\0');
        let known = if storable {
            self.repository.credentials(&request.username).await.map_err(storage)?
        } else {
            None
        };
        // bcrypt would compare the first 72 bytes only.
        let known = known.filter(|_| request.password.len() <= limits::PASSWORD_MAX_BYTES);
        let (id, hash) = known.map(|k| (k.user_id, k.password_hash)).unzip();
        let right = self.auth.verify(request.password, hash).await?;
        let (true, Some(id)) = (right, id) else { return Err(refused()) };
        let user = self.repository.user(id).await.map_err(storage)?.ok_or_else(refused)?;
        self.log_in_as(user).await
    }

    async fn log_in_as(&self, user: User) -> Result<Authenticated, Failure> {
        let now = Timestamp::now();
        let session = SessionId(Uuid::now_v7());
        let refresh = Auth::new_refresh_token();
        let expires = self.auth.refresh_expires(now);
        self.repository
            .create_login(session, user.id, &refresh.hash, now, expires)
            .await
            .map_err(storage)?;
        self.authenticated(user, session, refresh.text, now)
    }

    fn authenticated(
        &self,
        user: User,
        session: SessionId,
        refresh_token: String,
        now: Timestamp,
    ) -> Result<Authenticated, Failure> {
        let who = Identity { user: user.id, session };
        let (access_token, expires_in) = self.auth.access_token(who, now)?;
        Ok(Authenticated { user, access_token, refresh_token, expires_in })
    }

    /// Trades a refresh token for new tokens. A token used twice ends the
    /// session: one of the two users of it stole it.
    ///
    /// # Errors
    /// `unauthorized`, `unavailable`.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Authenticated, Failure> {
        let refused = || Failure::unauthorized("The refresh token is not valid. Log in again.");
        let now = Timestamp::now();
        let old = Auth::refresh_hash(refresh_token);
        let new = Auth::new_refresh_token();
        let expires = self.auth.refresh_expires(now);
        let rotation =
            self.repository.rotate_refresh(&old, &new.hash, now, expires).await.map_err(storage)?;
        match rotation {
            Rotation::Rotated { session, user } => {
                let user = self.repository.user(user).await.map_err(storage)?;
                self.authenticated(user.ok_or_else(refused)?, session, new.text, now)
            }
            Rotation::Reused { session, .. } => {
                tracing::warn!("a spent refresh token was used again; the session is ended");
                self.session_ended(session, "refresh_token_reused");
                Err(refused())
            }
            Rotation::Unknown => Err(refused()),
        }
    }

    /// Ends a session: its tokens are dead and its sockets disconnected.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn log_out(&self, who: Identity) -> Result<(), Failure> {
        self.repository.end_login(who.session, Timestamp::now()).await.map_err(storage)?;
        self.session_ended(who.session, "logged_out");
        Ok(())
    }

    fn session_ended(&self, session: SessionId, reason: &str) {
        self.auth.forget(session);
        self.fanout.revoke(session, reason);
    }

    /// The caller's own account.
    ///
    /// # Errors
    /// `unauthorized` if the account is gone, `unavailable`.
    pub async fn me(&self, user: UserId) -> Result<User, Failure> {
        self.repository
            .user(user)
            .await
            .map_err(storage)?
            .ok_or_else(|| Failure::unauthorized("This account no longer exists."))
    }

    /// Changes the caller's profile.
    ///
    /// # Errors
    /// `validation_failed`, `unauthorized`, `unavailable`.
    pub async fn update_me(&self, user: UserId, patch: UserPatch) -> Result<User, Failure> {
        if let Some(name) = &patch.display_name {
            validate::text("displayName", name, limits::DISPLAY_NAME_CHARS)?;
        }
        if let Some(Some(url)) = &patch.avatar_url {
            validate::text("avatarUrl", url, 0..=limits::AVATAR_URL_CHARS)?;
        }
        let avatar = patch.avatar_url.as_ref().map(Option::as_deref);
        self.repository
            .update_user(user, patch.display_name.as_deref(), avatar)
            .await
            .map_err(storage)?
            .ok_or_else(|| Failure::unauthorized("This account no longer exists."))
    }

    /// People whose username or display name begins so.
    ///
    /// # Errors
    /// `validation_failed`, `unavailable`.
    pub async fn search_users(
        &self,
        prefix: &str,
        limit: Option<i64>,
    ) -> Result<Vec<User>, Failure> {
        validate::text("search", prefix, limits::SEARCH_CHARS)?;
        let limit = validate::limit(limit, limits::USERS_PAGE_DEFAULT)?;
        self.repository.search_users(prefix, limit).await.map_err(storage)
    }

    /// Users by id; unknown ones are left out.
    ///
    /// # Errors
    /// `validation_failed`, `unavailable`.
    pub async fn users(&self, ids: &[UserId]) -> Result<Vec<User>, Failure> {
        validate::count("ids", ids.len(), limits::USER_IDS)?;
        self.repository.users_by_ids(ids).await.map_err(storage)
    }
}
