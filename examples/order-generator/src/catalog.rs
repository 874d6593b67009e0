//! What the shop sells and where its customers live: the fixed tables the generator draws from. `examples/order-screen`
//! shows the same categories, brands and provinces.

/// A kind of goods with its brands and price range.
#[derive(Debug)]
pub struct Category {
    /// The name, as in `goodsType`.
    pub name: &'static str,
    /// Cheapest and dearest goods, in whole yuan.
    pub price_yuan: (i64, i64),
    /// How often men and women order from it.
    pub weights: (u32, u32),
    /// Brands with how often each is chosen.
    pub brands: &'static [(&'static str, u32)],
}

/// The 8 categories with their 28 brands.
pub const CATEGORIES: [Category; 8] = [
    Category {
        name: "数码",
        price_yuan: (400, 12_000),
        weights: (24, 10),
        brands: &[("苹果", 30), ("华为", 28), ("小米", 22), ("三星", 8), ("OPPO", 12)],
    },
    Category {
        name: "美食",
        price_yuan: (20, 300),
        weights: (22, 26),
        brands: &[("三只松鼠", 34), ("良品铺子", 28), ("百草味", 22), ("卫龙", 16)],
    },
    Category {
        name: "时尚",
        price_yuan: (80, 2_000),
        weights: (10, 22),
        brands: &[("优衣库", 44), ("太平鸟", 26), ("海澜之家", 30)],
    },
    Category {
        name: "家居",
        price_yuan: (50, 5_000),
        weights: (10, 12),
        brands: &[("宜家", 40), ("林氏家居", 32), ("全友", 28)],
    },
    Category {
        name: "运动",
        price_yuan: (60, 1_800),
        weights: (18, 9),
        brands: &[("耐克", 28), ("阿迪达斯", 22), ("安踏", 27), ("李宁", 23)],
    },
    Category {
        name: "母婴",
        price_yuan: (30, 1_000),
        weights: (5, 12),
        brands: &[("飞鹤", 40), ("贝亲", 32), ("好孩子", 28)],
    },
    Category {
        name: "大杂烩",
        price_yuan: (20, 1_000),
        weights: (9, 10),
        brands: &[("名创优品", 42), ("网易严选", 36), ("得力", 22)],
    },
    Category {
        name: "包包",
        price_yuan: (300, 20_000),
        weights: (2, 7),
        brands: &[("LV", 18), ("古驰", 22), ("蔻驰", 60)],
    },
];

/// The 34 areas of the province level under their full names, as the ECharts map spells them, weighted roughly by
/// population and buying habit.
pub const PROVINCES: [(&str, u32); 34] = [
    ("北京市", 36),
    ("天津市", 15),
    ("上海市", 42),
    ("重庆市", 30),
    ("河北省", 62),
    ("山西省", 28),
    ("辽宁省", 36),
    ("吉林省", 19),
    ("黑龙江省", 24),
    ("江苏省", 96),
    ("浙江省", 88),
    ("安徽省", 55),
    ("福建省", 50),
    ("江西省", 40),
    ("山东省", 92),
    ("河南省", 84),
    ("湖北省", 58),
    ("湖南省", 60),
    ("广东省", 140),
    ("海南省", 9),
    ("四川省", 78),
    ("贵州省", 32),
    ("云南省", 38),
    ("陕西省", 36),
    ("甘肃省", 18),
    ("青海省", 4),
    ("台湾省", 6),
    ("内蒙古自治区", 20),
    ("广西壮族自治区", 42),
    ("西藏自治区", 2),
    ("宁夏回族自治区", 6),
    ("新疆维吾尔自治区", 20),
    ("香港特别行政区", 4),
    ("澳门特别行政区", 1),
];

/// Family names with their share, most common first.
pub const FAMILY_NAMES: [(&str, u32); 32] = [
    ("王", 72),
    ("李", 70),
    ("张", 66),
    ("刘", 52),
    ("陈", 46),
    ("杨", 30),
    ("黄", 24),
    ("赵", 22),
    ("吴", 20),
    ("周", 20),
    ("徐", 15),
    ("孙", 15),
    ("马", 13),
    ("朱", 13),
    ("胡", 13),
    ("林", 12),
    ("郭", 12),
    ("何", 11),
    ("高", 10),
    ("罗", 9),
    ("郑", 9),
    ("梁", 9),
    ("谢", 8),
    ("宋", 8),
    ("唐", 7),
    ("许", 7),
    ("邓", 6),
    ("冯", 6),
    ("韩", 6),
    ("曹", 5),
    ("欧阳", 2),
    ("上官", 1),
];

/// Given names of men.
pub const MEN: [&str; 20] = [
    "伟", "强", "磊", "军", "勇", "杰", "涛", "明", "超", "浩", "志强", "建国", "俊杰", "宇轩", "浩然", "子豪", "文博",
    "嘉伟", "海波", "一鸣",
];

/// Given names of women.
pub const WOMEN: [&str; 20] = [
    "芳", "娜", "敏", "静", "丽", "艳", "娟", "霞", "婷", "雪", "秀英", "桂英", "欣怡", "梓涵", "诗涵", "雨婷", "佳怡",
    "思琪", "晓燕", "一诺",
];

/// Whether `name` is one of the 34 full province names.
pub fn is_province(name: &str) -> bool {
    PROVINCES.iter().any(|(province, _)| *province == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn eight_categories_twenty_eight_brands_thirty_four_provinces() {
        let brands: BTreeSet<_> =
            CATEGORIES.iter().flat_map(|category| category.brands).map(|(name, _)| name).collect();
        assert_eq!(brands.len(), 28);
        assert!(CATEGORIES.iter().all(|category| (3..=5).contains(&category.brands.len())));
        assert_eq!(PROVINCES.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), 34);
        assert!(is_province("内蒙古自治区") && !is_province("内蒙古"));
    }
}
