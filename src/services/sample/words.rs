//! Word lists of the sample data, invented here.
//!
//! Keeps true: no list is empty, nobody in them is real. Does not do: languages other than English.

pub(super) const GIVEN: &[&str] = &[
    "Amara", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jonas", "Kaya", "Lorenzo", "Mina",
    "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Soren", "Tariq", "Uma", "Viktor", "Wanda", "Ximena", "Yusuf",
    "Zofia",
];
pub(super) const FAMILY: &[&str] = &[
    "Abbott",
    "Brandt",
    "Castillo",
    "Dahl",
    "Eriksen",
    "Fontaine",
    "Grimaldi",
    "Haddad",
    "Ivanova",
    "Jansen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quiroga",
    "Rossi",
    "Santos",
    "Tanaka",
    "Ueda",
    "Varga",
    "Weiss",
];
pub(super) const PLACES: &[&str] = &[
    "Harbour Hall",
    "Old Foundry",
    "Riverside Club",
    "Station Loft",
    "North Pier",
    "Glass House",
    "Market Arcade",
    "Lighthouse Room",
    "Castle Cellar",
    "Garden Pavilion",
];
pub(super) const SEASONS: &[&str] =
    &["Spring", "Summer", "Autumn", "Winter", "Midnight", "Sunday", "Grand", "Rookie", "Masters", "Charity"];
pub(super) const EVENTS: &[&str] =
    &["Open", "Cup", "Classic", "Invitational", "Series", "Showdown", "Festival", "League"];
pub(super) const GUILDS: &[&str] = &[
    "Falcon", "Juniper", "Cobalt", "Meridian", "Saffron", "Granite", "Willow", "Comet", "Ember", "Delta", "Orchid",
    "Tundra",
];
pub(super) const COUNTRIES: &[&str] = &["DE", "FR", "IT", "ES", "PL", "SE", "NO", "JP", "BR", "CA", "NG", "PT"];
pub(super) const CITIES: &[&str] =
    &["Aldermoor", "Brightwater", "Castelnovo", "Dunmere", "Eastgate", "Fairhaven", "Grünfeld", "Hollowbrook"];
pub(super) const QUALITIES: &[&str] =
    &["Practical", "Quiet", "Bright", "Modern", "Honest", "Careful", "Bold", "Gentle", "Sturdy", "Nimble"];
pub(super) const SUBJECTS: &[&str] = &[
    "Gardening",
    "Bookkeeping",
    "Photography",
    "Carpentry",
    "Cycling",
    "Baking",
    "Pottery",
    "Astronomy",
    "Sailing",
    "Weaving",
];
pub(super) const SENTENCES: &[&str] = &[
    "Written for people who would rather do than watch.",
    "Everything fits into an afternoon.",
    "The first part needs nothing but paper and patience.",
    "Questions are answered within a day.",
    "Bring what you have; the rest is here.",
    "It was improved every year since it began.",
    "Small groups, plain words, no hurry.",
    "The result is yours to keep.",
];
