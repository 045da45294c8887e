//! Handles with the type of their object.

use core::mem::ManuallyDrop;
use core::ops::Deref;

use dragonfly_abi::{Call, Handle, HandleInfo, ObjectType, Rights, StartHandles, Status};

use super::{call, call_until_done};

/// A handle to an object of a known type. Copying the value copies no right and closes nothing.
pub trait Object: Copy {
    /// The type of the object.
    const TYPE: ObjectType;

    /// Takes a handle to be one of this type; the kernel refuses calls with [`Status::BadType`] if it is not.
    fn from_handle(handle: Handle) -> Self;

    /// The handle.
    fn handle(self) -> Handle;

    /// The handle's type, rights and badge.
    ///
    /// # Errors
    /// [`Status::BadHandle`].
    fn handle_info(self) -> Result<HandleInfo, Status> {
        let [object, rights, badge, ..] = call(Call::HandleInfo, [self.handle().0.into()])?;
        let object = ObjectType::from_raw(object).ok_or(Status::BadType)?;
        Ok(HandleInfo { object, rights: Rights::from_bits_truncate(rights as u32), badge })
    }

    /// Another handle of this domain to the object, with these rights of those that this one has. Badge 0 keeps the
    /// badge.
    ///
    /// # Errors
    /// [`Status::Denied`] without COPY or for more rights, [`Status::BadArgument`] for another badge than the handle
    /// has, [`Status::NoHandles`], [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    fn copy(self, rights: Rights, badge: u64) -> Result<Owned<Self>, Status> {
        let arguments = [self.handle().0.into(), StartHandles::DOMAIN.0.into(), rights.bits().into(), badge];
        call(Call::HandleCopy, arguments).map(|words| Owned::from_word(words[0]))
    }

    /// Takes back everything that was derived from the handle, in every domain, mappings included.
    ///
    /// # Errors
    /// [`Status::BadHandle`].
    fn revoke(self) -> Result<(), Status> {
        call_until_done(Call::HandleRevoke, [self.handle().0.into()]).map(drop)
    }

    /// Gives the handle up. Copies of it elsewhere stay.
    ///
    /// # Errors
    /// [`Status::BadHandle`].
    fn close(self) -> Result<(), Status> {
        call_until_done(Call::HandleClose, [self.handle().0.into()]).map(drop)
    }
}

/// Defines an object's handle type.
macro_rules! define_object {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(transparent)]
        pub struct $name(dragonfly_abi::Handle);

        impl $crate::sys::Object for $name {
            const TYPE: dragonfly_abi::ObjectType = dragonfly_abi::ObjectType::$name;

            fn from_handle(handle: dragonfly_abi::Handle) -> Self {
                Self(handle)
            }

            #[inline(always)]
            fn handle(self) -> dragonfly_abi::Handle {
                self.0
            }
        }

        impl $name {
            /// The handle as a call's argument.
            #[inline(always)]
            fn word(self) -> u64 {
                self.0.0.into()
            }
        }
    };
}
pub(super) use define_object;

/// A handle that is closed when it goes out of scope.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the handle is closed when this goes out of scope"]
pub struct Owned<T: Object>(T);

impl<T: Object> Owned<T> {
    /// Takes over a handle, for example one that came with a message.
    pub const fn new(object: T) -> Self {
        Self(object)
    }

    /// Takes over the handle that a call gave.
    pub(super) fn from_word(word: u64) -> Self {
        Self(T::from_handle(Handle(word as u32)))
    }

    /// Gives the handle up now.
    ///
    /// # Errors
    /// [`Status::BadHandle`] if it was closed or revoked in another way.
    pub fn close(self) -> Result<(), Status> {
        self.keep().close()
    }

    /// Keeps the handle open for as long as the domain lives.
    #[must_use]
    pub fn keep(self) -> T {
        ManuallyDrop::new(self).0
    }
}

impl<T: Object> Deref for Owned<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Object> Drop for Owned<T> {
    fn drop(&mut self) {
        // Fails only if the handle is gone already, by a revocation for example.
        let _ = self.0.close();
    }
}
