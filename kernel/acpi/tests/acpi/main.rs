//! Discovery on simulated platforms: one file for what each table means, one for what is done about corrupt ones.

mod aml;
mod builder;
mod corruption;
mod platform;
mod properties;
