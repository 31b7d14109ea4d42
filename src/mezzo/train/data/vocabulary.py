"""Names of people, firms, goods and places, in two halves that share nothing."""

from __future__ import annotations

from dataclasses import dataclass

from mezzo.train.data.material import Material


@dataclass(frozen=True)
class Halves:
    """Two lists that share nothing: what `train` is made of, and what only `held_out` has."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, material: Material) -> tuple[str, ...]:
        return self.train if material.split == "train" else self.held_out

    def pick(self, material: Material) -> str:
        return material.rng.choice(self.of(material))

    def sample(self, material: Material, count: int) -> list[str]:
        """Return up to `count` different ones."""
        return material.rng.sample(self.of(material), min(count, len(self.of(material))))


FIRST_NAMES = Halves(
    ("Anna", "Ben", "Carla", "David", "Elena", "Frank", "Grace", "Henry", "Iris", "Jack", "Kate", "Liam", "Maria",
     "Noah", "Olivia", "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Yusuf", "Zoe", "Amir", "Bella", "Chen",
     "Diego", "Emma", "Felix", "Gina", "Hugo", "Ines", "John", "Karl", "Lucy", "Mark", "Nina", "Oscar", "Priya",
     "Ravi", "Sara", "Tom", "Uma", "Will", "Laura", "Peter", "Mia", "Leo"),
    ("Astrid", "Boris", "Clara", "Dmitri", "Edith", "Fatima", "Gustav", "Hana", "Ivan", "Julia", "Kenji", "Lars",
     "Mona", "Nils", "Otto", "Petra", "Rhys", "Sven", "Thea", "Vera"),
)  # fmt: skip
LAST_NAMES = Halves(
    ("Adams", "Baker", "Clark", "Diaz", "Evans", "Fischer", "Garcia", "Hughes", "Ito", "Jones", "Kim", "Lopez",
     "Miller", "Nguyen", "Owen", "Patel", "Quinn", "Rossi", "Smith", "Taylor", "Usman", "Vogel", "Walker", "Young",
     "Brown", "Cohen", "Dubois", "Ellis", "Ford", "Green", "Hall", "Jensen", "King", "Lee", "Moore", "Novak", "Park",
     "Reed", "Scott", "Turner", "West", "Wood", "Martin", "Silva", "Santos", "Weber"),
    ("Abbott", "Becker", "Costa", "Dahl", "Eriksen", "Foster", "Gruber", "Haas", "Ivers", "Kovac", "Lund", "Meyer",
     "Nolan", "Olsen", "Peters", "Ryan", "Sato", "Tanaka", "Varga", "Zeller"),
)  # fmt: skip
FIRM_ENDINGS = Halves(
    (
        "Ltd",
        "Inc",
        "Group",
        "Studio",
        "Design",
        "Labs",
        "Media",
        "Energy",
        "Motors",
        "Tools",
        "Software",
        "Foods",
    ),
    ("GmbH", "LLC", "Partners", "Systems", "Trading", "Works"),
)
SHOP_ENDINGS = Halves(
    (
        "Market",
        "Store",
        "Cafe",
        "Bakery",
        "Books",
        "Pharmacy",
        "Grocery",
        "Deli",
        "Shop",
        "Hardware",
        "Kitchen",
    ),
    ("Bistro", "Kiosk", "Corner", "Mart", "Bazaar", "Outlet"),
)
GOODS = Halves(
    ("Milk", "Bread", "Butter", "Eggs", "Cheese", "Apples", "Bananas", "Coffee", "Tea", "Sugar", "Rice", "Pasta",
     "Tomatoes", "Onions", "Carrots", "Chicken", "Fish", "Salad", "Yogurt", "Juice", "Water", "Cola", "Soap",
     "Shampoo", "Batteries", "Candles", "Notebook", "Pencil", "Paper", "Tape", "Glue", "Stamps", "Towel", "Socks",
     "Gloves", "Lamp", "Cable", "Mouse", "Hammer", "Nails", "Paint", "Brush", "Muffin", "Croissant", "Sandwich",
     "Soup", "Pizza", "Burger", "Fries", "Cake", "Cookies", "Chocolate", "Honey", "Salt", "Pepper", "Oil", "Flour"),
    ("Pears", "Grapes", "Lemons", "Garlic", "Olives", "Tofu", "Cereal", "Jam", "Bagel", "Waffle", "Espresso",
     "Lemonade", "Napkins", "Sponge", "Umbrella", "Scarf", "Charger", "Screws", "Marker", "Envelope"),
)  # fmt: skip
SERVICES = Halves(
    ("Design", "Hosting", "Repair", "Training", "Support", "Delivery", "Printing", "Cleaning", "Consulting",
     "Testing", "Rent", "License", "Editing", "Photos", "Storage", "Travel", "Catering", "Painting", "Security"),
    ("Audit", "Translation", "Shipping", "Research", "Backup", "Assembly", "Packaging", "Tuning", "Survey"),
)  # fmt: skip
JOBS = Halves(
    ("Engineer", "Designer", "Manager", "Teacher", "Lawyer", "Architect", "Nurse", "Chef", "Editor", "Director",
     "Accountant", "Sales Manager", "Photographer", "Web Developer", "Consultant", "Product Manager", "Dentist",
     "Art Director", "Journalist", "Project Manager"),
    ("Plumber", "Surgeon", "Florist", "Pilot", "Data Analyst", "Chief Engineer", "Translator", "Curator"),
)  # fmt: skip
CITIES = Halves(
    ("Paris", "London", "Berlin", "Madrid", "Rome", "Vienna", "Oslo", "Dublin", "Boston", "Chicago", "Denver",
     "Tokyo", "Delhi", "Cairo", "Lagos", "Lima", "Sydney", "Toronto", "Prague", "Athens"),
    ("Lisbon", "Warsaw", "Geneva", "Helsinki", "Seattle", "Osaka", "Nairobi", "Quito", "Perth", "Zagreb"),
)  # fmt: skip
STREETS = Halves(
    ("Main Street", "Park Road", "High Street", "Oak Lane", "Mill Road", "Church Street", "King Street", "Hill Road",
     "River Road", "Lake Avenue", "Station Road", "Elm Street"),
    ("Garden Way", "Bridge Street", "Market Square", "Cedar Drive", "Harbour Road", "Queen Street"),
)  # fmt: skip
DOMAINS = Halves(
    ("mail.com", "post.net", "office.org", "firm.com", "work.io"), ("inbox.eu", "desk.co", "team.net")
)
MONEY = Halves(
    ("{}", "{}", "${}", "${}", "{} EUR", "EUR {}", "{} USD"), ("CHF {}", "{} GBP", "{} kr", "USD {}")
)


def person(material: Material) -> str:
    return f"{FIRST_NAMES.pick(material)} {LAST_NAMES.pick(material)}"


def firm(material: Material, endings: Halves = FIRM_ENDINGS) -> str:
    """Return the name of a firm: somebody's name or a word, and mostly what kind of firm it is."""
    name = LAST_NAMES.pick(material) if material.rng.random() < 0.4 else material.word(9).capitalize()
    return name if material.rng.random() < 0.1 else f"{name} {endings.pick(material)}"


def phone(material: Material) -> str:
    """Return a telephone number; the held-out spellings are others."""
    d = material.digits
    shapes = (
        (f"{d(3)}-{d(4)}", f"{d(3)}-{d(3)}-{d(4)}", f"({d(3)}) {d(3)}-{d(4)}", f"+{d(2)} {d(3)} {d(4)}")
        if material.split == "train"
        else (f"{d(3)}.{d(4)}", f"0{d(2)}/{d(5)}", f"{d(3)} {d(2)} {d(2)}")
    )
    return material.rng.choice(shapes)


def cents(amount: int) -> str:
    """Write an amount of cents: 1234567 -> "12,345.67"."""
    return f"{amount // 100:,}.{amount % 100:02}"
