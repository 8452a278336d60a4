package simulator

// wiki is a wiki of the simulation.
type wiki struct {
	name, domain string
	lang         *language
}

// language is what a wiki's titles, comments and users are made of.
type language struct {
	words      []string
	comments   []string // of edits
	added      string   // to a category, after the page
	autoLabels []string // what Wikidata and Commons say about an edit
	category   string   // the name of its namespace
}

var (
	english = &language{
		words:      []string{"River", "School", "Battle", "Station", "Church", "List", "Island", "Museum", "Railway", "County", "Album", "Season", "Valley", "Bridge", "Castle", "Garden", "Market", "Harbour", "Festival", "Council"},
		comments:   []string{"fixed typo", "Reverted 1 edit by a new user", "added a reference", "clean up, replaced: the the", "Rescuing 2 sources and tagging 0 as dead. #IABot (v2.0.9.5)", "updated the infobox \"Settlement\"", "Disambiguated [[Mercury]]", "copyedit & wording", "Adding short description", "moved a section, see talk"},
		added:      " added to category",
		autoLabels: []string{"Created claim", "Changed claim", "Added reference to claim", "Changed label, description and/or aliases", "Added qualifier", "Removed claim", "Added statements for 5 properties", "Created a new Item"},
		category:   "Category",
	}
	german = &language{
		words:      []string{"Bahnhof", "Kirche", "Straße", "Liste", "Schloss", "Burg", "Gemeinde", "Fluss", "Verein", "Markt", "Turm", "Schule"},
		comments:   []string{"Tippfehler entfernt", "Einzelnachweis", "Halbgeviertstrich", "BKL aufgelöst", "kl. Korrektur"},
		added:      " zur Kategorie hinzugefügt",
		autoLabels: []string{"Aussage erstellt", "Beschreibung geändert", "Fundstelle hinzugefügt"},
		category:   "Kategorie",
	}
	romance = &language{
		words:      []string{"Lac", "Pont", "Duomo", "Parque", "Calle", "Monte", "Santa", "Liceo", "Chiesa", "Forêt", "Via", "Ponte", "Teatro", "Isla", "Liga", "Gare"},
		comments:   []string{"correction orthographique", "ajout d'une référence", "annulation d'une modification", "eliminar \"anotación\"", "correzione minore", "+ref"},
		added:      " aggiunta alla categoria",
		autoLabels: []string{"Déclaration créée", "Libellé modifié", "Creado elemento"},
		category:   "Categoria",
	}
	vietnamese = &language{
		words:    []string{"Sông", "Đường", "Huyện", "Thành phố", "Ga", "Đảo", "Chùa", "Nam", "Tây Ninh", "Cao Lanh"},
		comments: []string{"Đã cứu 1 nguồn và đánh dấu 0 nguồn là hỏng", "sửa lỗi chính tả", "thêm nguồn", "Thêm thể loại"},
		added:    " đã được thêm vào thể loại",
		category: "Thể loại",
	}
	russian = &language{
		words:      []string{"Река", "Школа", "Список", "Битва", "Улица", "Станция", "Церковь", "Озеро", "Район", "Музей", "Футбол", "Город"},
		comments:   []string{"уточнение", "оформление", "отмена правки 1", "дополнение, источники", "переименование категории", "орфография"},
		added:      " добавлена в категорию",
		autoLabels: []string{"Создано утверждение", "Изменено описание"},
		category:   "Категория",
	}
	arabic = &language{
		words:      []string{"نهر", "مدرسة", "قائمة", "معركة", "محطة", "مدينة", "جامعة", "نادي", "جزيرة", "متحف"},
		comments:   []string{"بوت:إضافة وصلة أرشيفية.", "تصحيح إملائي", "إضافة مصدر", "بوت: تقييم جودة مشاريع الويكي", "استرجاع تعديل"},
		added:      " أضيفت للتصنيف",
		autoLabels: []string{"أنشأ ادعاءً"},
		category:   "تصنيف",
	}
	hebrew = &language{
		words:      []string{"נהר", "בית", "רשימת", "קרב", "תחנת", "רחוב", "מוזיאון", "אגם"},
		comments:   []string{"תיקון הקלדה", "הוספת מקור", "עריכה", "ביטול גרסה"},
		added:      " נוסף לקטגוריה",
		autoLabels: []string{"נוצרה הצהרה"},
		category:   "קטגוריה",
	}
	chinese = &language{
		words:      []string{"列表", "车站", "大学", "河", "战役", "岛", "博物馆", "学校", "寺", "公园"},
		comments:   []string{"修正錯字", "新增參考資料", "回退編輯", "调整格式", "更新信息框"},
		added:      "已添加至分类",
		autoLabels: []string{"创建声明", "已更改标签"},
		category:   "Category",
	}
	japanese = &language{
		words:    []string{"駅", "一覧", "学校", "川", "神社", "鉄道", "公園", "まつり", "アルバム"},
		comments: []string{"誤字修正", "出典を追加", "カテゴリを追加", "体裁の調整"},
		added:    "をカテゴリに追加",
		category: "Category",
	}
)

// Where the edits are made, in per cent, apart from Commons and Wikidata.
var wikis = []weighted[wiki]{
	{10.8, wiki{"enwiki", "en.wikipedia.org", english}},
	{3.6, wiki{"viwiki", "vi.wikipedia.org", vietnamese}},
	{2.1, wiki{"ruwiki", "ru.wikipedia.org", russian}},
	{1.9, wiki{"enwiktionary", "en.wiktionary.org", english}},
	{1.7, wiki{"eswiktionary", "es.wiktionary.org", romance}},
	{1.7, wiki{"arwiki", "ar.wikipedia.org", arabic}},
	{1.6, wiki{"frwiki", "fr.wikipedia.org", romance}},
	{1.5, wiki{"dewiki", "de.wikipedia.org", german}},
	{1.3, wiki{"zhwiki", "zh.wikipedia.org", chinese}},
	{1.2, wiki{"mgwiktionary", "mg.wiktionary.org", romance}},
	{1.1, wiki{"frwiktionary", "fr.wiktionary.org", romance}},
	{1.1, wiki{"eswiki", "es.wikipedia.org", romance}},
	{0.8, wiki{"cewiki", "ce.wikipedia.org", russian}},
	{0.8, wiki{"ptwiki", "pt.wikipedia.org", romance}},
	{0.8, wiki{"fawiki", "fa.wikipedia.org", arabic}},
	{0.7, wiki{"itwiki", "it.wikipedia.org", romance}},
	{0.7, wiki{"jawiki", "ja.wikipedia.org", japanese}},
	{0.6, wiki{"plwiki", "pl.wikipedia.org", english}},
	{0.5, wiki{"hewiki", "he.wikipedia.org", hebrew}},
	{0.4, wiki{"ukwiki", "uk.wikipedia.org", russian}},
	{0.3, wiki{"ckbwiki", "ckb.wikipedia.org", arabic}},
	{0.3, wiki{"svwiki", "sv.wikipedia.org", german}},
}

// wikisWeight is the sum of the weights of wikis, and restWeight that of all
// the other wikis, whose languages are in smallWikis.
const (
	wikisWeight = 35.5
	restWeight  = 7.9
)

var smallWikis = []string{"af", "an", "ast", "az", "be", "bg", "bn", "bs", "ca", "co", "cs", "cy", "da", "el", "eo", "et", "eu", "fi", "ga", "gl", "gu", "hi", "hr", "hu", "hy", "id", "is", "ka", "kk", "ko", "la", "lt", "lv", "ml", "mr", "ms", "nl", "nn", "no", "oc", "ro", "simple", "sk", "sl", "sq", "sr", "sw", "ta", "te", "th", "tr", "uz"}

var (
	commons  = wiki{"commonswiki", "commons.wikimedia.org", english}
	wikidata = wiki{"wikidatawiki", "www.wikidata.org", english}
)

// What the languages of edits on Wikidata and Commons are: of their editors.
var editorLanguages = []weighted[*language]{
	{70, english}, {10, german}, {10, romance}, {5, russian}, {2, arabic}, {1, hebrew}, {2, chinese},
}

// What users are called: a beginning and an end.
var (
	latinNames  = [2][]string{{"Ada", "Ömü", "Bel", "Cor", "Dan", "Eli", "Fen", "Gar", "Hol", "Ivo", "Jun", "Kas", "Lor", "Mar", "Nor", "Oda", "Per", "Quin", "Ros", "Sel", "Tam", "Una", "Vil", "Wen", "Yor", "Zeb"}, {"rick", "mond", "stein", "wood", "lin", "dale", "vik", "nova", "ton", "bert", "fisk", "mere", "son", "field"}}
	otherNames  = [][2][]string{{{"Лес", "Зим", "Вод", "Руд", "Сев"}, {"ной", "ник", "ович", "ава"}}, {{"沈", "林", "高", "山", "木"}, {"清水", "之", "田", "光", "書"}}, {{"نور", "بحر", "قمر", "ندى"}, {" الدين", "ان", "ي"}}, {{"אור", "גל", "רון"}, {"ית", "ן", " טל"}}, {{"바다", "하늘", "구름"}, {"별", "이", "숲"}}, {{"सूर", "चन्द", "मेघ"}, {"ज", "न", "वाला"}}}
	emojiNames  = []string{"🦊", "🌻", "🚲", "🎻", "🏳️‍🌈", "👩🏽‍🚀"}
	botNames    = [2][]string{{"Arc", "Geo", "Cite", "Lint", "Typo", "Cat", "Stub", "Link", "Meta", "File", "Date", "Item", "Redirect", "Harvest", "Tidy", "Index"}, {"Bot", "bot", "Fixer bot", "erBOT", "Bot II"}}
	sectionName = []string{"References", "History", "External links", "Career", "See also"}
)
