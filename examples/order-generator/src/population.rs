//! The shop's customers. A customer is a function of seed and number, so a population of any size needs no memory and a
//! customer keeps name, gender, province and phone for ever. Names repeat, ids do not.

use crate::catalog::{FAMILY_NAMES, MEN, PROVINCES, WOMEN};
use crate::order::Gender;
use crate::random::Random;

/// One customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Unique number; the id is `U` and eight digits.
    pub number: u32,
    /// Family name, not unique with the given name.
    pub family_name: &'static str,
    /// Given name.
    pub given_name: &'static str,
    /// 男 or 女.
    pub gender: Gender,
    /// Full province name.
    pub province: &'static str,
    /// Eleven digits.
    pub phone: u64,
}

/// The customer of this number.
pub fn user(seed: u64, number: u32) -> User {
    let mut random = Random::new(seed ^ (u64::from(number) + 1).wrapping_mul(0xd6e8_feb8_6659_fd93));
    let gender = if random.below(100) < 52 { Gender::Woman } else { Gender::Man };
    let given_names = match gender {
        Gender::Man => &MEN,
        Gender::Woman => &WOMEN,
    };
    User {
        number,
        family_name: FAMILY_NAMES[random.weighted(FAMILY_NAMES.iter().map(|(_, weight)| *weight))].0,
        given_name: given_names[random.below(given_names.len() as u64) as usize],
        gender,
        province: PROVINCES[random.weighted(PROVINCES.iter().map(|(_, weight)| *weight))].0,
        phone: 13_000_000_000 + random.below(1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_customer_never_changes_and_names_repeat() {
        assert_eq!(user(1, 42), user(1, 42));
        assert_ne!(user(1, 42).phone, user(2, 42).phone);
        let users: Vec<User> = (0..5000).map(|number| user(1, number)).collect();
        let names: BTreeSet<_> = users.iter().map(|u| (u.family_name, u.given_name)).collect();
        assert!(names.len() < users.len());
        let provinces: BTreeSet<_> = users.iter().map(|u| u.province).collect();
        assert_eq!(provinces.len(), 34);
    }
}
