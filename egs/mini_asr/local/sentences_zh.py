"""Mandarin: everyday requests and remarks in characters, without blanks, and rare names.

espeak's `cmn` voice reads characters through its own dictionary, in which the words used here
have their right readings (a test compares them with pinyin). It reads Latin letters, and a few
characters that its dictionary lacks, in English: none of them are used.
"""

from __future__ import annotations

import numpy as np
from sentences import Grammar, choose

DIGITS = "零一二三四五六七八九"


def number(value: int) -> str:
    """`value` (1 to 999) as it is read: 342 is 三百四十二, 15 is 十五."""
    hundreds, rest = divmod(value, 100)
    tens, ones = divmod(rest, 10)
    text = f"{DIGITS[hundreds]}百" if hundreds else ""
    if tens:
        text += "十" if tens == 1 and not hundreds else f"{DIGITS[tens]}十"
    elif hundreds and ones:
        text += "零"
    return text + (DIGITS[ones] if ones else "")


def counted(rng: np.random.Generator) -> str:
    """A number from 2 to 12 before a measure word, where 2 is 两."""
    value = int(rng.integers(2, 13))
    return "两" if value == 2 else number(value)


def any_number(rng: np.random.Generator) -> str:
    return number(int(rng.integers(13, 100)))


def big_number(rng: np.random.Generator) -> str:
    return number(int(rng.integers(100, 1000)))


def digits(rng: np.random.Generator) -> str:
    return "".join(DIGITS[d] for d in rng.integers(0, 10, size=rng.integers(3, 6)))


def clock(rng: np.random.Generator) -> str:
    value = int(rng.integers(1, 13))
    hour = f"{'两' if value == 2 else number(value)}点"
    return hour + choose(rng, ["", "半", "一刻", "十分", "二十分", "四十五分", "五十分"])


def date(rng: np.random.Generator) -> str:
    return f"{number(int(rng.integers(1, 13)))}月{number(int(rng.integers(1, 32)))}号"


SLOTS = {
    "counted": counted,
    "number": any_number,
    "big": big_number,
    "digits": digits,
    "clock": clock,
    "date": date,
    "month": [f"{number(value)}月" for value in range(1, 13)],
    "day": [f"星期{day}" for day in "一二三四五六天"],
    "half": "早上 上午 中午 下午 晚上".split(),
    "when": (
        "今天 明天 后天 现在 今晚 周末 {day} 下个{day} {half}{clock} 明天{half} {date}"
    ).split(),
    "often": "总是 经常 从不 有时 通常 很少".split(),
    "name": (
        "小明 小红 王芳 李娜 张伟 刘洋 陈静 杨光 赵敏 周杰 吴刚 孙丽 马超 林涛 何平 高山"
    ).split(),
    "relative": "妈妈 爸爸 哥哥 姐姐 弟弟 妹妹 爷爷 奶奶 老师 医生 朋友 同事 经理 邻居".split(),
    "who": "{name} {name} 我{relative} {relative}".split(),
    "place": (
        "北京 上海 广州 深圳 天津 南京 杭州 武汉 西安 青岛 苏州 昆明 香港 台北 东京 巴黎 伦敦"
    ).split(),
    "spot": (
        "机场 车站 医院 图书馆 博物馆 酒店 银行 邮局 学校 公司 市场 公园 药店 电影院 饭店 体育场"
    ).split(),
    "turn": "左 右".split(),
    "mark": "路口 桥 教堂 红绿灯 广场".split(),
    "room": "厨房 卧室 浴室 客厅 走廊 花园 车库 书房 餐厅 阳台".split(),
    "device": "灯 空调 电视 音响 电脑 风扇 热水器 洗衣机 咖啡机 摄像头 加湿器".split(),
    "thing": "窗户 门 窗帘".split(),
    "colour": "红色 绿色 蓝色 白色 黄色 紫色 黑色 灰色".split(),
    "food": (
        "面包 牛奶 鸡蛋 苹果 香蕉 土豆 大米 面条 鸡肉 鱼 糖 盐 咖啡 茶 果汁 蛋糕 豆腐 白菜 葡萄"
    ).split(),
    "dish": "饺子 面条 米饭 火锅 牛肉汤 烤鸭 包子 炒饭".split(),
    "object": (
        "衬衫 帽子 雨伞 手机 钥匙 钱包 椅子 桌子 镜子 自行车 吉他 杯子 书包 手表 毛巾"
    ).split(),
    "genre": "爵士 摇滚 流行 古典 民谣 钢琴 电子".split(),
    "mood": "快乐 安静 轻松 浪漫 忧伤".split(),
    "weather": "下雨 下雪 刮风 打雷 起雾".split(),
    "climate": "冷 热 暖和 潮湿 干燥 凉快".split(),
    "event": "会议 晚饭 聚会 面试 音乐会 婚礼 考试 比赛 课程 约会".split(),
    "task": (
        "浇花 喂猫 遛狗 交房租 吃药 洗车 寄信 买花 做饭 写报告 还书 接孩子 倒垃圾 看{relative}"
    ).split(),
    "vehicle": "火车 飞机 地铁 出租车 公共汽车 船".split(),
    "animal": "小狗 小猫 马 小鸟 兔子 鸭子 老虎".split(),
    "action": "睡觉 看书 工作 唱歌 跑步 等人 做饭 吃饭 画画 喝茶".split(),
    "feeling": "累 饿 渴 高兴 忙 生气 难过 紧张".split(),
    "message": (
        "我迟到了 我在路上 饭做好了 {vehicle}晚点了 {when}见 请回电话 生日快乐 {event}取消了 谢谢"
    ).split(),
    "polite": ["请", "麻烦你", "帮我", "", "", ""],
}

TOPICS = {
    "home": [
        "{polite}打开{room}的{device}",
        "{polite}关掉{room}的{device}",
        "{polite}把{room}的{thing}关上",
        "把{room}的温度调到{number}度",
        "把{room}的灯变成{colour}",
        "{room}的{thing}关了吗",
        "{clock}把{thing}锁上",
        "把{device}的音量调到{number}",
    ],
    "time": [
        "{polite}设一个{half}{clock}的闹钟",
        "{when}叫我起床",
        "{number}分钟以后提醒我",
        "取消{clock}的闹钟",
        "{when}提醒我{task}",
        "提醒{who}{task}",
        "{date}是{day}吗",
        "离{date}还有几天",
    ],
    "music": [
        "{polite}放一首{mood}的{genre}音乐",
        "在{room}放{genre}音乐",
        "跳过下面{counted}首歌",
        "我{often}听{genre}音乐",
        "{when}不要放{genre}音乐",
    ],
    "travel": [
        "从{place}到{place}有多远",
        "带我去{spot}",
        "{place}最近的{spot}在哪里",
        "去{place}的{vehicle}什么时候开",
        "{when}去{place}的{vehicle}票",
        "过了{mark}向{turn}转",
        "开车去{mark}旁边的{spot}",
        "{who}坐{vehicle}去{place}",
        "{big}路车在{spot}停",
        "我们{when}到{place}",
    ],
    "messages": [
        "{polite}给{who}打电话",
        "发消息给{who}",
        "告诉{who}{message}",
        "读一下{who}的{counted}条消息",
        "拨打{digits}",
        "我的号码是{digits}",
        "{spot}的密码是{digits}",
    ],
    "shopping": [
        "买{counted}斤{food}和{food}",
        "家里没有{food}了",
        "把{food}加到购物单",
        "这个{colour}的{object}多少钱",
        "我想要一个{colour}的{object}",
        "{object}要{big}块钱",
        "{when}订{counted}份{dish}",
        "哪里可以买{object}",
    ],
    "weather": [
        "{place}{when}会{weather}吗",
        "{place}{when}的天气怎么样",
        "{place}又{climate}又{climate}",
        "{place}的气温是{number}度",
        "{when}{climate}吗",
        "{weather}了记得带{object}",
    ],
    "calendar": [
        "{when}和{who}有{event}",
        "把{event}改到{date}",
        "和{who}的{event}是什么时候",
        "取消{day}的{event}",
        "{event}{half}{clock}开始",
        "我{when}有{event}吗",
        "请{who}和{who}参加{event}",
    ],
    "remarks": [
        "{name}在{room}{action}",
        "我{relative}有一只{colour}的{animal}",
        "{animal}在{room}睡觉",
        "{who}很{feeling}",
        "{name}和{name}在{action}",
        "我{day}{often}很{feeling}",
        "我们{day}{often}吃{dish}",
        "{name}在{place}丢了{object}",
        "{room}里有{number}个人",
        "{who}是{month}出生的",
        "{number}加{number}",
    ],
}

KEYWORD_TEMPLATES = [
    "{polite}{when}给{person}打电话",
    "发消息给{person}说{message}",
    "告诉{person}{message}",
    "{person}在{room}{action}",
    "{when}和{person}有{event}",
    "请{person}和{name}参加{event}",
    "我{relative}{person}很{feeling}",
    "提醒{person}{when}{task}",
    "从{place}到{town}有多远",
    "带我去{town}的{spot}",
    "{town}{when}的天气怎么样",
    "去{town}的{vehicle}{clock}开",
    "{person}坐{vehicle}去{town}",
    "我们{when}到{town}",
    "订一个{brand}{object}",
    "{brand}的{device}多少钱",
    "打开{room}的{brand}{device}",
    "{who}在{place}的{brand}公司工作",
    "哪里可以买{brand}的{object}",
    "{person}买了{colour}的{brand}{object}",
]

# Tiers: `train` is heard rarely in training; `rl` first in RL; `test` in the test sets alone.
KEYWORDS = {
    "person": {
        "train": "欧阳文博 司马青云 诸葛晓峰 上官婉清 慕容海涛 夏侯明亮 皇甫志强 东方玉兰".split(),
        "rl": "令狐春雷 公孙雅琴 赫连建国 端木秋霞 闻人思远 司徒美玲 南宫雪梅".split(),
        "test": "独孤振华 轩辕天佑 百里香凝 宇文俊杰 钟离若水 淳于慧敏 长孙明月 西门晓雪".split(),
    },
    "town": {
        "train": "乌鲁木齐 呼和浩特 石家庄 佳木斯 景德镇 攀枝花".split(),
        "rl": "齐齐哈尔 西双版纳 张家界 葫芦岛 连云港 嘉峪关".split(),
        "test": "克拉玛依 鄂尔多斯 牡丹江 日喀则 秦皇岛 吐鲁番 马鞍山 驻马店".split(),
    },
    "brand": {
        "train": "星海科技 绿洲电器 蓝鲸 飞鸿 晨曦 云帆".split(),
        "rl": "天枢 墨竹 银河谷 赤兔 金麒麟 雪豹".split(),
        "test": "玄武湖 青鸾 北斗星辰 碧波 凤凰树 紫荆".split(),
    },
}

GRAMMAR = Grammar(SLOTS, TOPICS, KEYWORD_TEMPLATES, KEYWORDS, separator="", tokens_per_word=2)
